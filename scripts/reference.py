"""Writes the reference pages that follow from the code: `python -m scripts.reference docs`.

configuration.md lists the fields of Settings, messages.md those of every message, kafka.md what topics must be like. A test
checks that they are current.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import msgspec

from stream.core.errors import REASONS
from stream.core.messages import MESSAGES
from stream.settings import Settings, topic_needs

CONFIGURATION: Final = """# Configuration

Written from `stream/settings/settings.py` by `python -m scripts.reference docs`.

Every setting can be given in four places; the first that has it wins:

1. a flag of the command, where it has one (`freshet worker --web-port 0`);
2. the environment: `FRESHET_` and the name in capitals (`FRESHET_BROKERS=kafka:9092`); lists as JSON;
3. a file of the same name in the folder that `FRESHET_SECRETS` names (`freshet_sasl_password`), for secrets;
4. a TOML file: the one that `FRESHET_CONFIG` names, else `freshet.toml` in the current folder (`brokers = "kafka:9092"`).

A wrong value, an unknown name in the TOML file, or two settings that disagree end every command with exit code 78 and one
line that names the field.

"""

MESSAGES_INTRO: Final = """# Messages

Written from `stream/core/messages.py` by `python -m scripts.reference docs`; the JSON Schemas are in [schemas](schemas).

All messages are JSON in UTF-8. All times are epoch milliseconds, UTC. Fields that are not listed are ignored, so producers
may add their own. Every topic name may carry the setting `prefix`.

| topic | key | value |
|---|---|---|
| `clicks` `ratings` `comments` | user id, in the form of the setting `key` | click, rating, comment |
| `items` | item id in UTF-8 | item; a null value (tombstone) removes the item |
| `recommendations` | user id, in the form of the setting `key`; `*` for anyone unknown | recommendation |
| `dead-letters` | as received | as received; the headers say what is wrong |

**Identity.** An event's id is the body's `id`, else the place in its header `original-record`, else its own
topic/partition/offset.
An event whose `id` or `original-record` is among those of its user's last 64 events is a duplicate and changes
nothing. The header is for
[dead letters that are sent back](deadletters.md): it names the topic/partition/offset (ASCII, plain decimals) of the record that
first failed. Only the first header of that name counts, and one that is malformed or names none of the three source topics
counts for nothing. Other headers are not read.

**Whose ids are whose.** Places (topic/partition/offset with the name of a source topic) are freshet's; every other id is the
producer's, to use as it likes. An `id` that spells a place is an id like any other all the same: it is equal to
itself, and never to the place. It makes no duplicate of the record that lies there, nor of a dead letter from there that is sent
back, and a record without an id is never the duplicate of anything.

**Names that are repeated.** Of a name that an object has twice, the last value counts, as in most parsers; the others are not
looked at. A header's name that is not UTF-8 is read with its bad bytes escaped (`\\xff`), and stands so in a dead letter.

**Where a record must lie.** On partition murmur2(key) mod n, the default of the Java client and of kafka-python. Clients on
librdkafka (confluent-kafka and others) have another default: set `partitioner=murmur2_random`; [clients.md](clients.md) has the
others. A record that is good but for its partition is sent on to the right one. The copy has its key, value and headers, its
place in the header `forwarded`, and, unless it has an `original-record` that counts, in `original-record`, too: so it
is the same event however
often it is sent on within 64 events of its user, and one that is read again is not sent on again. With the setting
`misplaced = "dead-letter"` it becomes a dead letter `mispartitioned`.

**Transactions.** A producer may write in transactions (Kafka Streams, Flink, Connect). What it aborts is never read. What it
commits is read once the transaction ends, as is everything behind its first record on that partition, so short transactions keep
slates fresh: an event's time to its slate is counted from its append.

**What a consumer does.** Keep, per user, the recommendation with the highest `seq`: after a crash an older one may come again
(`replay: true`). `applied` names the last event of this user that the slate knows, per topic-partition: a slate whose
`applied["clicks/2"]` is at least 41 has taken in the user's clicks up to offset 41 of partition 2. `items` is shorter than
`slate_size` where fewer items are live that the user has not had, and `[]` where there is none: the slate still says what was
taken in, so show what anyone unknown gets (`*`) instead. A slate stays as it was made until
its user's next event: an older one may name items that were removed or made unavailable since. So
read `items`, too, and show of a slate only what is there and not `available: false`; `freshet
recommendations` marks the others. No slate is removed by a tombstone. That for `*` has a header `writer`, for `freshet verify`.

**What to send where.**

| what a user did | topic | fields besides `user`, `item`, `time` |
|---|---|---|
| opened an item, followed a recommendation | `clicks` | |
| saw it, put it in the cart, bought it | `clicks` | `action`: `view`, `cart`, `purchase` |
| liked it, disliked it, skipped it | `clicks` | `action`: `like`, `dislike`, `skip` |
| something else (shared, downloaded, borrowed) | `clicks` | `action`: a name of your own |
| gave stars or a score | `ratings` | `value`, within `rating_scale` |
| wrote a review or a remark | `comments` | `text`; `value` where there are stars with it |

`dislike` and `skip` are no choices: training does not predict them, neighbours and popularity do not count them, figures are not
about them. Every other click is a choice, whatever name it has. Where choices are counted in training, `view` counts 0.5,
`click` 1, `cart` 2, `like` 2, `purchase` 3, all else 1; [models.md](models.md) says how to change that. The recurrent network
reads the action of every click, whether it is a choice or not, where its training had that name often enough (in 1 % of all
events or in 100); another name, and no action, are read alike.

An item that the user has had, in whatever way, disliked and skipped ones too, is not recommended to
that user again (the setting `filter_seen`). A user sends one event for each thing done: a purchase after a view is two clicks.

**Not used yet.** `slate`, `rank` and `dwell_ms` of events and `scenes` of items are checked and kept in their topics; nothing
reads them. The `scene` of events is used.

**Envelopes.** The setting `envelope` says what events are wrapped in; what follows is then said of the event inside. A record
without the envelope's names is taken as it is, so that `freshet send` goes on working. Items are never unwrapped. After a change,
`freshet verify` must be told of it: `--envelope-before` ([verify.md](verify.md)). The names are those of the whole value:

| `envelope` | a record with the names | the event |
|---|---|---|
| `connect` | `schema` and `payload`: JsonConverter with schemas | `payload` |
| `debezium` | `op` and one of `before`, `after`, `source`, as the whole value or as the `payload` of a `schema` | `after` |
| `cloudevents` | `specversion`: structured mode | `data`, a JSON object |

With `debezium` a record with `schema` and `payload` without an `op` is taken as with `connect` (ExtractNewRecordState). A
row that is changed is one more event. A row that is deleted (`op` is `d`, or `after` is null or absent) is a dead letter
`deleted`: deletes of events cannot be applied. With `cloudevents` an event without an `id` of its own has as id the
envelope's `source`, a space, and its `id`, since CloudEvents promise only both together to be unique; where one is no text
or empty, or both come to over 256 characters, it has none, and its place counts. Binary mode needs no setting: the value is
the event, and headers `ce_...` are not read. The key, which must be the event's `user`, has no envelope. The chain, and
whatever goes on (a dead letter, a copy on the right partition), is of the whole value as received. A record that cannot be
read and has another known form (Schema Registry, Avro, Protocol Buffers, MessagePack, XML, gzip, an envelope that is not
set) becomes a dead letter whose message names the form, and what to set in the producer or here.

**Keys.** The setting `key` says how a user id is written as the key of an event, a slate and a state:

| `key` | the key of user `42` | which users have one |
|---|---|---|
| `utf8` | `42`: its text in UTF-8 | all |
| `json` | `"42"`: a JSON string, with no escapes but those that JSON demands | all |
| `long` | 8 bytes, big-endian, signed: 0, 0, 0, 0, 0, 0, 0, 42 | whole numbers of 64 bits in plain decimal |

The body's `user` is a JSON string in each of them, with `long` the number in plain decimal: `"42"`, not `42`, `"042"` or `"+42"`.
A user has one key, since the partition follows from its bytes. A JSON string that is spelt in another way (`"caf\\u00e9"` for
`"café"`, or with spaces around) lies elsewhere and is a dead letter `key_mismatch`, whose message says what was found and what
is expected; so is a key in another form, whose message names the value to set. The key of the slate for anyone unknown is `*` in
each form. [clients.md](clients.md#serializers) says which serializer writes which. A deployment keeps its form: a worker with
another one than its changelog was begun with is refused (78).

**What the schemas cannot say.** The value is at most 32 levels deep; the key is the body's `user`; `value` lies within the
setting `rating_scale`; `time` is at most one hour after the append time of the record, and not before the setting `min_time`
(2000, where it is not set: seconds that are taken for milliseconds lie in January 1970, and the dead letter says so).

**What is too long** is refused: on the wire, by `freshet send`, by `freshet replay`, and by every reader of data for `freshet
train`. They hold an event or an item to one definition (`stream/core/validation.py`), so what trains can also be sent.
Nothing cuts a
user, an item, a scene or a category, since two long names could become one. Only a reader of other people's files (MovieLens,
reviews) cuts prose, titles and texts, to the longest that a message may carry.

"""

KAFKA: Final = """# What a worker needs of Kafka

Written from `stream/settings/topic_needs.py` by `python -m scripts.reference docs`.

Apache Kafka 2.8 or later, for the ids of topics. `freshet topics create` makes the topics as they are below, `freshet topics
check` and every start of a worker check them, and a worker looks every four seconds whether they still are. What does not fit
ends it with exit code 78 and one line with the topic, the setting, what was found and what is needed;

    freshet topics mend

sets it (it needs the right AlterConfigs, and changes no number of partitions). What was lost before stays lost: where a source
topic was compacted for a while, or its retention was too short, the worker ends with 76 at the first record that is gone.

Kafka deletes the offsets of a group that has been empty for `offsets.retention.minutes` (the broker's, 10080: 7 days). Where
workers may be away for longer, lengthen it beyond the retention of the source topics, or at least to the longest outage. A
worker that finds no offset in a partition that a worker has owned before begins at the start of the log; where records have been
deleted there, nobody knows whether they were read, and it ends with 76 (`--accept-loss` goes on). A record on a
wrong partition that is read again is not sent on again: the worker looks for its copy first ([clients.md](clients.md)).

A worker also remembers each topic's id. One that is deleted and created again under its old name is another topic:

| recreated | under a running worker | at the next start |
|---|---|---|
| a source topic | 76 within some 10 s | 76: offsets begin again; another `app_id`, or bring the old topic back |
| the changelog | 76 within some 10 s | 76: the states are gone; `--accept-loss` goes on without them |
| `items` | 76 within some 10 s | goes on with the new catalogue alone |
| `recommendations` | 76 within some 10 s | goes on; each user's next event brings a slate |
| `dead-letters` | 76 within some 10 s | goes on |

Deleted, and not made again within some 10 s, each of them is 78. A data folder notes the cluster, the name, the id and the
partition of its changelog: what was read from another one is dropped and read back. The claims in the changelog name the
source topics: a worker of another `prefix` is refused with 78, for that is another deployment, and needs an `app_id` of its
own.

To prove a long time by [`freshet verify`](verify.md), keep all of the changelog that long: `min.compaction.lag.ms` on the
changelog and on `recommendations`, with the policies as they are. Settings that are not listed do not matter to a worker; the
changelog and the outputs may be compressed by any codec.

"""

REASONS_INTRO: Final = """
What to do with dead letters is said in [deadletters.md](deadletters.md). Reasons, the values of the header
`__rec.errors.reason`:
"""


def type_name(schema: dict[str, Any]) -> str:
    """A JSON Schema's type in a few words: `string, 1 to 256 characters`."""
    if "$ref" in schema:
        return str(schema["$ref"]).rsplit("/", 1)[1].lower()
    if "anyOf" in schema:
        return " or ".join(type_name(one) for one in schema["anyOf"] if one != {"type": "null"})
    if "enum" in schema:
        return ", ".join(f"`{one}`" for one in schema["enum"])
    kind: str = schema.get("type", "any")
    if kind == "array":
        if "prefixItems" in schema:
            return "[" + ", ".join(type_name(one) for one in schema["prefixItems"]) + "]"
        return f"list of {type_name(schema['items'])}" + _range(schema, "minItems", "maxItems", " of them")
    if kind == "object" and "additionalProperties" in schema:
        return f"object of {type_name(schema['additionalProperties'])}"
    if kind == "string":
        form = {"password": "secret"}.get(schema.get("format", ""), str(schema.get("format", "string")))
        return form + (_range(schema, "minLength", "maxLength", " characters") if form == "string" else "")
    return kind + _range(schema, "minimum", "maximum", "")


def _range(schema: dict[str, Any], low: str, high: str, unit: str) -> str:
    least = schema.get(low, schema.get("exclusiveMinimum"))
    most = schema.get(high)
    above = "above " if "exclusiveMinimum" in schema else ""
    if least is not None and most is not None:
        return f", {above}{_number(least)} to {_number(most)}{unit}"
    if most is not None:
        return f", at most {_number(most)}{unit}"
    return f", {above or 'at least '}{_number(least)}{unit}" if least is not None else ""


def _number(number: float) -> str:
    return f"{int(number)}" if float(number).is_integer() else f"{number:g}"


def _row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"


def configuration() -> str:
    """The page of all settings."""
    page = CONFIGURATION + "| setting | default | type | what |\n|---|---|---|---|\n"
    for name, schema in Settings.model_json_schema()["properties"].items():
        default = schema.get("default")
        shown = "" if default is None or schema.get("format") == "password" else _shown(default)
        page += _row((f"`{name}`", f"`{shown}`" if shown else "", type_name(schema), schema.get("description", "")))
    return page


def _shown(default: object) -> str:
    return str(default).lower() if isinstance(default, bool) else str(default)


def messages() -> str:
    """The page of all messages."""
    page = MESSAGES_INTRO
    for name, message in MESSAGES.items():
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
    """The page of what topics must be like."""
    page = KAFKA
    for kind in topic_needs.KINDS:
        page += f"## {kind.title}\n\nPartitions: {kind.partitions}.\n\n"
        page += "| setting | made with | needed | why |\n|---|---|---|---|\n"
        for need in kind.needs:
            made = f"`{need.value(1)}`" if need.made else "the broker's default"
            if need.value(1) != need.value(3):
                made += f", `{need.value(3)}` from 3 copies on"
            page += _row((f"`{need.setting}`", made, need.expected, need.why))
        page += "\n"
    return page.rstrip("\n") + "\n"


def _says(schema: dict[str, Any]) -> str:
    inner = next((one["description"] for one in schema.get("anyOf", ()) if "description" in one), "")
    return str(schema.get("description", inner))


def pages() -> dict[str, str]:
    """File name -> text."""
    return {"configuration.md": configuration(), "kafka.md": kafka(), "messages.md": messages()}


if __name__ == "__main__":
    for file, text in pages().items():
        (Path(sys.argv[1]) / file).write_text(text)
