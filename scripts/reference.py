"""Writes the reference pages that are generated from the code: `python -m scripts.reference docs`.

configuration.md lists the fields of Settings, messages.md the fields of every message, and kafka.md the requirements
for topics. A test checks that the pages are current.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import msgspec

from deploy.clients.type_names import type_name
from stream.core import bundle_log
from stream.core.errors import REASONS
from stream.core.messages import MESSAGES
from stream.settings import Settings, topic_needs

FOLDER: Final = Path(__file__).resolve().parents[1] / "docs"

CONFIGURATION: Final = """# Configuration

Written from `stream/settings/settings.py` by `python -m scripts.reference docs`.

Every setting can be given in four places. The first one that has it wins:

1. a flag of the command, if it has one (`freshet worker --web-port 0`);
2. the environment: `FRESHET_` and the name in capitals (`FRESHET_BROKERS=kafka:9092`); lists are JSON;
3. a file of the same name in the folder that `FRESHET_SECRETS` names (`freshet_sasl_password`), for secrets;
4. a TOML file: the one that `FRESHET_CONFIG` names, else `freshet.toml` in the current folder (`brokers =
"kafka:9092"`).

If a value is wrong, a name in the TOML file is unknown, or two settings contradict each other, every command ends with
exit code 78 and one line that names the field. An empty path means the default.

"""

MESSAGES_INTRO: Final = """# Messages

Written from `stream/core/messages.py` by `python -m scripts.reference docs`. The JSON Schemas are in
[schemas](schemas/click.json).

All messages are JSON in UTF-8. All times are epoch milliseconds, UTC. Fields that are not listed are ignored, so
producers may add their own. Every topic name has the setting `prefix` before it.

| topic | key | value |
|---|---|---|
| `clicks` `ratings` `comments` | user id, in the form of the setting `key` | click, rating, comment |
| `items` | item id in UTF-8 | item; a null value (tombstone) removes the item |
| `rules` | rule id in UTF-8 | [rule](rules.md); a null value (tombstone) deletes the rule |
| `tables` | `i:` and an item id in UTF-8, or `e` | row, or closing record of an [epoch](tables.md) |
| `bundles` | `activate`, or the name of a process: 32 hex digits | activate; loaded, refused or switched ([swap](swap.md)) |
| `recommendations` | user id, in the form of the setting `key`; `*` for any unknown user | recommendation |
| `dead-letters` | as received | as received; the headers say what is wrong |

**Identity.** An event's id is the body's `id`, else the place in its header `original-record`, else its own
topic/partition/offset. If an event's `id` or `original-record` is among those of its user's last 64 events, the event
is a duplicate and changes nothing. The header is for [dead letters that are sent back](deadletters.md): it names the
topic/partition/offset (ASCII, plain decimals) of the record that first failed. Only the first header of that name
counts. A header that is malformed or names none of the three source topics does not count. Other headers are not read.

**Whose ids are whose.** Places (topic/partition/offset with the name of a source topic) belong to freshet. Every other
id belongs to the producer, who may choose it freely. Even an `id` that spells a place is an id like any other: it
equals itself, and never the place. It does not make a duplicate of the record at that place, nor of a dead letter from
there that is sent back. A record without an id is never a duplicate of anything.

**Repeated names.** If an object has a name twice, the last value counts, as in most parsers. The others are ignored. If
a header's name is not UTF-8, its bad bytes are escaped (`\\xff`), and it is written that way into a dead letter.

**Which partition a record must be on.** It is murmur2(key) mod n, the default of the Java client and of kafka-python.
Clients based on librdkafka (confluent-kafka and others) have another default: set `partitioner=murmur2_random`. For
other clients, see [clients.md](clients.md). A record that is good but on a wrong partition is forwarded to the right
one. The copy has the same key, value and headers. It has the record's place in the header `forwarded`, and also in
`original-record`, unless the record already has an `original-record` that counts. So it is the same event, however
often it is forwarded within 64 events of its user. A record that is read again is not forwarded again. With the setting
`misplaced = "dead-letter"`, the record becomes a dead letter `mispartitioned`.

**Transactions.** A producer may write in transactions (Kafka Streams, Flink, Connect). Records that it aborts are never
read. Records that it commits are read once the transaction ends, as is everything after its first record on that
partition. So short transactions keep slates fresh: the time from an event to its slate is counted from its append.

**What a consumer does.** Keep, per user and `placement`, the recommendation with the highest `seq`: after a crash, an
older one may come again (`replay: true`). `applied` names the last event of this user that the slate knows, per
topic-partition. For example, if `applied["clicks/2"]` is at least 41, the slate includes the user's clicks up to offset
41 of partition 2. Unless [placements](placements.md) are published, no slate has a `placement`. `items` has fewer than
`slate_size` items (or the placement's `size`) if fewer live items are left that the user has not interacted with. It is
`[]` if there are none. The slate still shows which events were applied, so show the slate for unknown users (`*`)
instead. A slate stays as it was written until its user's next event, so an older one may name items that were removed
or made unavailable since. So read `items`, too, and show only those items of a slate that are there and do not have
`available: false`. `freshet recommendations` marks the others. A tombstone removes a user's slates: the user was
[forgotten](forgetting.md). The slate for `*` has a header `writer`, for `freshet verify`.

**What to send where.**

| what a user did | topic | fields besides `user`, `item`, `time` |
|---|---|---|
| opened an item, followed a recommendation | `clicks` | |
| saw it, put it in the cart, bought it | `clicks` | `action`: `view`, `cart`, `purchase` |
| liked it, disliked it, skipped it | `clicks` | `action`: `like`, `dislike`, `skip` |
| something else (shared, downloaded, borrowed) | `clicks` | `action`: a name of your own |
| gave stars or a score | `ratings` | `value`, within `rating_scale` |
| wrote a review or a remark | `comments` | `text`; `value` if there are stars with it |

`dislike` and `skip` are not choices: training does not predict them, neighbours and popularity do not count them, and
figures are not about them. Every other click is a choice, whatever its action. When training counts choices, `view`
counts 0.5, `click` 1, `cart` 2, `like` 2, `purchase` 3, and all others 1. [models.md](models.md) describes how to
change that. The recurrent network reads the action of every click, whether it is a choice or not, if that action was
frequent enough in its training (in 1 % of all events or in 100). Any other action is read like no action.

An item that the user has interacted with in any way, even a disliked or skipped one, is not recommended to that user
again (the setting `filter_seen`). Send one event for each thing that a user does: a purchase after a view is two
clicks.

**Not used yet.** `slate`, `rank` and `dwell_ms` of events are checked and kept in their topics, but nothing reads them.
The `scene` of events is used.

**Attributes.** An item's `attributes` are what [filters](rules.md#filters) can ask for: up to 64 of them, each with a
name of 1 to 64 characters, and with a number within 1e15, a text of at most 256 characters, or a list of at most 64
such texts. A date is a text in ISO 8601 (`2026-11-27`, `2026-11-27T14:00:00Z`) or epoch milliseconds. A record with any
other attribute is refused as a whole, and the reason names the attribute.

**Envelopes.** The setting `envelope` names the envelope around events. All rules then apply to the event inside. A
record without the names of the envelope is read as it is, so `freshet send` still works. Items are never unwrapped.
After a change of the setting, `freshet verify` needs the former value: `--envelope-before` ([verify.md](verify.md)).
The names in this table are those of the whole value:

| `envelope` | a record with the names | the event |
|---|---|---|
| `connect` | `schema` and `payload`: JsonConverter with schemas | `payload` |
| `debezium` | `op` and one of `before`, `after`, `source`, as the whole value or as the `payload` of a `schema` | `after` |
| `cloudevents` | `specversion`: structured mode | `data`, a JSON object |

With `debezium`, a record that has `schema` and `payload` but no `op` is read as with `connect` (ExtractNewRecordState).
A changed row is one more event. A deleted row (`op` is `d`, or `after` is null or absent) becomes a dead letter
`deleted`: deletes of events cannot be applied.

With `cloudevents`, the id of an event without its own `id` is the envelope's `source`, a space, and the envelope's
`id`, since CloudEvents only guarantee that both together are unique. If one of them is not a text or is empty, or both
together are longer than 256 characters, the event has no id, and its place counts. Binary mode needs no setting: the
value is the event, and the headers `ce_...` are not read.

The key must be the event's `user`. It has no envelope. The chain is over the whole value as received, and the whole
value is also what a dead letter or a forwarded copy holds. A record that cannot be read and has another known form
(Schema Registry, Avro, Protocol Buffers, MessagePack, XML, gzip, an envelope that is not set) becomes a dead letter.
Its message names the form, and what to set in the producer or here.

**Keys.** The setting `key` is the form in which a user id is the key of an event, a slate and a state:

| `key` | the key of user `42` | which users have one |
|---|---|---|
| `utf8` | `42`: its text in UTF-8 | all |
| `json` | `"42"`: a JSON string, with no escapes except those that JSON requires | all |
| `long` | 8 bytes, big-endian, signed: 0, 0, 0, 0, 0, 0, 0, 42 | whole numbers of 64 bits in plain decimal |

The body's `user` is a JSON string with each form. With `long`, it is the number in plain decimal: `"42"`, not `42`,
`"042"` or `"+42"`. A user has exactly one key, since the partition follows from its bytes. A JSON string in another
spelling (`"caf\\u00e9"` for `"café"`, or with spaces around) is on another partition. It becomes a dead letter
`key_mismatch` whose message says what was found and what was expected. So does a key in another form; its message names
the value to set. The key of the slate for unknown users is `*` in each form. For which serializer writes which form,
see [clients.md](clients.md#serializers). A deployment must keep its form: a worker refuses to start (78) with another
form than its changelog was begun with.

**Rules that the schemas cannot express.** The value has at most 32 levels. The key is the body's `user`. `value` is
within the setting `rating_scale`. `time` is at most one hour after the append time of the record, and not before the
setting `min_time` (2000 by default: seconds that are taken for milliseconds are in January 1970, and the dead letter
points that out).

**Texts that are too long** are refused: on the wire, by `freshet send`, by `freshet replay`, and by every reader of
data for `freshet train`. All of them use one definition of an event and an item (`stream/core/validation.py`), so data
that can be trained on can also be sent. Nothing cuts a user, an item, a scene or a category, since two long names could
become one. Only a reader of published data sets (MovieLens, reviews) cuts prose, titles and texts, to the longest that
a message may have.

"""

KAFKA: Final = """# What a worker needs from Kafka

Written from `stream/settings/topic_needs.py` by `python -m scripts.reference docs`.

freshet needs Apache Kafka 2.8 or later, for the ids of topics. `freshet topics create` creates the topics as they are
below. `freshet topics check` and every start of a worker check them. A running worker checks every four seconds whether
they are still right. If something does not fit, the worker ends with exit code 78 and one line with the topic, the
setting, what was found and what is needed.

    freshet topics mend

corrects the settings. (It needs the permission AlterConfigs, and does not change numbers of partitions.) What was lost
before stays lost: if a source topic was compacted for a while, or its retention was too short, the worker ends with 76
at the first record that is gone.

Kafka deletes the offsets of a group that has been empty for `offsets.retention.minutes` (a setting of the broker;
10080, which is 7 days). If workers may be away for longer, make it longer than the retention of the source topics, or
at least than the longest outage. If a worker finds no offset for a partition that a worker has owned before, it begins
at the start of the log. If records have been deleted there, it is unknown whether they were read, and the worker ends
with 76 (`--accept-loss` continues). A record on a wrong partition that is read again is not forwarded again: the worker
looks for its copy first ([clients.md](clients.md)).

A worker also remembers each topic's id. A topic that is deleted and created again under its old name is another topic:

| recreated | under a running worker | at the next start |
|---|---|---|
| a source topic | 76 within about 10 s | 76: offsets begin again; use another `app_id`, or bring the old topic back |
| the changelog | 76 within about 10 s | 76: the states are gone; `--accept-loss` continues without them |
| `items` | 76 within about 10 s | continues with the new catalogue alone |
| `tables` | 76 within about 10 s | continues; the tally writes all rows again |
| `bundles` | 76 within about 10 s | continues with the bundle that `CURRENT` names |
| `recommendations` | 76 within about 10 s | continues; each user's next event brings a slate |
| `dead-letters` | 76 within about 10 s | continues |

If a topic is deleted and not recreated within about 10 s, the worker ends with 78. A data folder records the cluster,
the name, the id and the partition of its changelog. If they change, its content is dropped and read back. The claims in
the changelog name the source topics. A worker with another `prefix` refuses to start (78): it is another deployment,
and needs its own `app_id`.

To verify a long period with [`freshet verify`](verify.md), keep all of the changelog that long: set
`min.compaction.lag.ms` on the changelog and on `recommendations`, with the policies as they are. Settings that are not
listed do not matter to a worker. The changelog and the outputs may be compressed with any codec.

## Compression

Workers send the changelog and slates uncompressed. `changelog_compression` and `slate_compression` (`gzip` or `zstd`) change
that, batch by batch: records of before stay as they are, and every reader of freshet reads all codecs. The topic's
`compression.type` must be `producer`, as brokers have it by default. Consumers of `recommendations` must know the codec.

Measured on state records of 64 events without ids, 2,818 bytes each, in batches of 26, on one crowded core:

| codec | bytes a record | CPU to send, us a record | to read |
|---|---|---|---|
| none | 2,847 | 3.4 | 0.3 |
| zstd | 1,238 | 17 | 6 |
| gzip | 1,196 | 340 | 14 |

So zstd is worth its time where the network or the brokers' disks are the limit. The workers' own folders are always compressed
([benchmarks](benchmarks.md#state-and-recovery)).

"""

REASONS_INTRO: Final = """
For what to do with dead letters, see [deadletters.md](deadletters.md). The reasons, which are the values of the header
`__rec.errors.reason`, are:
"""


def _row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"


def configuration() -> str:
    """Return the page of all settings."""
    page = CONFIGURATION + "| setting | default | type | what |\n|---|---|---|---|\n"
    for name, schema in Settings.model_json_schema()["properties"].items():
        default = schema.get("default")
        shown = "" if default is None or schema.get("format") == "password" else _shown(default)
        page += _row((f"`{name}`", f"`{shown}`" if shown else "", type_name(schema), schema.get("description", "")))
    return page


def _shown(default: object) -> str:
    return default if isinstance(default, str) else json.dumps(default)


def messages() -> str:
    """Return the page of all messages."""
    page = MESSAGES_INTRO
    for name, message in {**MESSAGES, **bundle_log.MESSAGES}.items():
        definitions = msgspec.json.schema(message)["$defs"]
        headers = name == "dead-letter-headers"
        page += f"## {'Dead letter headers' if headers else name}\n"
        for definition in sorted(definitions.values(), key=lambda one: one["title"] != message.__name__):
            if definition["title"] != message.__name__:
                page += f"\n### {definition['title'].lower()}\n"
            page += f"\n{' '.join(definition['description'].split())}\n\n| field | type | what |\n|---|---|---|\n"
            for field, schema in definition["properties"].items():
                optional = field not in definition["required"]
                kind = type_name(schema)
                page += _row((f"`{field}`", kind + (", optional" if optional else ""), _says(schema)))
        if headers:
            page += REASONS_INTRO + "\n" + "".join(f"- `{reason}`: {said}\n" for reason, said in REASONS.items())
        page += "\n"
    return page.rstrip("\n") + "\n"


def kafka() -> str:
    """Return the page of the requirements for topics."""
    page = KAFKA
    for kind in topic_needs.KINDS:
        page += f"## {kind.title}\n\nPartitions: {kind.partitions}.\n\n"
        page += "| setting | created with | required | why |\n|---|---|---|---|\n"
        for need in kind.needs:
            made = f"`{need.value(1)}`" if need.made else "the broker's default"
            if need.value(1) != need.value(3):
                made += f", `{need.value(3)}` with 3 or more copies"
            page += _row((f"`{need.setting}`", made, need.expected, need.why))
        page += "\n"
    return page.rstrip("\n") + "\n"


def _says(schema: dict[str, Any]) -> str:
    inner = next((one["description"] for one in schema.get("anyOf", ()) if "description" in one), "")
    return str(schema.get("description", inner))


def pages() -> dict[str, str]:
    """Return file name -> text."""
    return {"configuration.md": configuration(), "kafka.md": kafka(), "messages.md": messages()}


def main() -> None:
    """Write the pages into the given folder, or into docs of this repository."""
    parser = argparse.ArgumentParser(prog="python -m scripts.reference", description=main.__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=FOLDER, help="default: %(default)s")
    folder: Path = parser.parse_args().folder
    if not folder.is_dir():
        parser.error(f"{folder} is not a folder")
    for file, text in pages().items():
        (folder / file).write_text(text, "utf-8")


if __name__ == "__main__":
    main()
