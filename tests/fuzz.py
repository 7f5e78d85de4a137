"""Every parser of freshet with the errors that it may end in: the targets of tests/unit/tests/test_fuzz.py and of `make fuzz`.

    python -m tests.fuzz [SECONDS] [TARGET...]

mutates the seeds below, guided by coverage where atheris is installed, else by Hypothesis, and stops at the first input
that a parser answers with anything else than a value or one of its own errors. That input is printed; add it to SEEDS.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NamedTuple

import jsonschema_rs
from aiokafka.partitioner import murmur2 as kafka_hash
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from deploy.clients.murmur2 import murmur2
from deploy.clients.producer import Sent
from deploy.clients.schema import parse, schema
from deploy.clients.slate_reader import SlateReader
from deploy.dead_letters import corrections as corrections_file
from deploy.dead_letters import redrive
from deploy.dead_letters.reader import FIELDS, DeadLetter
from deploy.verify.fencing import Fencing
from deploy.verify.producer_log import ProducerLog
from deploy.verify.validator import Accepted, Validator
from models.data.folders import read
from stream.core import fencing_log
from stream.core import state as state_module
from stream.core.decoder import EventDecoder
from stream.core.errors import (
    BrokerError,
    BundleError,
    DataError,
    RecordError,
    SettingsError,
    StateError,
    TopologyError,
)
from stream.core.json_body import JsonDecoder
from stream.core.messages import Item
from stream.inference import bundle, onnx_check
from stream.settings import load, security

PARTITIONS: Final = 3
NOW: Final = 1_700_000_000_000
SCALE: Final = (0.5, 5.0)
DEEP: Final = b"[" * 100_000


class Said(NamedTuple):
    """A Kafka record as far as the parsers look at it."""

    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes]]


def events(data: bytes) -> None:
    """The hot path's decoder takes exactly what verify's validator takes."""
    decoder, validator = EventDecoder(kafka_hash, PARTITIONS, SCALE), Validator(PARTITIONS, SCALE)
    user = b"ann"
    with suppress(ValueError, AttributeError, RecursionError, TypeError, KeyError):
        user = json.loads(data)["user"].encode() if b'"user"' in data else user
    partition = murmur2(user) % PARTITIONS
    for behaviour in range(3):
        verdict = validator.validate(behaviour, partition, NOW, user, data)
        try:
            event = decoder.decode(behaviour, partition, 1, NOW, user, data)
        except RecordError as error:
            refused: RecordError | None = error
        else:
            refused = None
        assert isinstance(verdict, Accepted) == (refused is None), f"decoder: {refused}, validator: {verdict}"
        if isinstance(verdict, Accepted):
            assert (event.item, event.time, event.id, event.action) == (
                verdict.item, verdict.time, verdict.id, verdict.action,
            )  # fmt: skip


def items(data: bytes) -> None:
    with suppress(RecordError):
        JsonDecoder(Item).decode(data)


def states(data: bytes) -> None:
    """A state that can be decoded is encoded as it was, and what it holds can be looked at."""
    with suppress(StateError):
        state = state_module.decode(data)
        list(state.recents())
        state.seen_hashes()


def claim(data: bytes) -> None:
    assert fencing_log.decode(data).epoch >= 0
    assert fencing_log.epoch_of([("writer", data)]) >= 0


def letter(data: bytes) -> None:
    """The headers of a dead letter, from anybody who may write to the topic."""
    settings_ = load()
    names = [f"__rec.errors.{field}" for field in FIELDS]
    parts = data.split(b"|")
    fields = dict.fromkeys(FIELDS, "") | {
        name.removeprefix("__rec.errors."): part.decode(errors="replace")
        for name, part in zip(names, parts, strict=False)
    }
    one = DeadLetter(Sent("d", 0, 1), 0, data, data, fields, (("original-record", data), ("x", data)))
    json.dumps(one.row())
    assert one.failed_ms >= 0
    with suppress(DataError):
        redrive.outgoing(settings_, one)


def toml(data: bytes) -> None:
    _in_file("freshet.toml", data, _load)


def _load(path: Path) -> None:
    before = os.environ.get("FRESHET_CONFIG")
    os.environ["FRESHET_CONFIG"] = str(path)
    try:
        with suppress(SettingsError):
            load()
    finally:
        del os.environ["FRESHET_CONFIG"]
        if before is not None:
            os.environ["FRESHET_CONFIG"] = before


def environment(data: bytes) -> None:
    """A setting's text, as an environment variable would hold it."""
    text = data.decode(errors="replace").replace("\0", "")
    for name in ("rating_scale", "partitions", "brokers", "web_port", "sasl_password"):
        with suppress(SettingsError):
            load(**{name: text})


def token(data: bytes) -> None:
    def one(path: Path) -> None:
        with suppress(BrokerError):
            assert security.token(path).isprintable()

    _in_file("token", data, one)


def manifest(data: bytes) -> None:
    with suppress(BundleError):
        bundle._manifest(data)


def graphs(data: bytes) -> None:
    with suppress(BundleError):
        onnx_check.check("step.onnx", data, bundle.OPSET)


def arrays(data: bytes) -> None:
    with suppress(BundleError):
        bundle._array("items.npy", data, (3, 2))
    with suppress(BundleError):
        bundle._finite_weights(data)
    with suppress(BundleError):
        bundle._item_ids(data, 2)
    with suppress(BundleError):
        bundle._golden(data, "step")


def pointer(data: bytes) -> None:
    def one(path: Path) -> None:
        with suppress(BundleError):
            assert bundle.current(path.parent).parent == path.parent

    _in_file("CURRENT", data, one)


def ledger(data: bytes) -> None:
    def one(path: Path) -> None:
        with suppress(DataError):
            ProducerLog(path, ("clicks",), 0, PARTITIONS)

    _in_file("ledger", data.replace(b"\n", b" "), one)


def corrections(data: bytes) -> None:
    def one(path: Path) -> None:
        with suppress(DataError):
            corrections_file.read(path)

    _in_file("corrected", data, one)


def writer(data: bytes) -> None:
    """A claim as verify reads it."""
    writers = Fencing()
    with suppress(TopologyError):  # of a claim that says another form of keys
        wrong = writers.claim(Said(0, 1, NOW, fencing_log.CLAIM_KEY, data, [("writer", data)]))
        assert wrong is None or wrong.kind in ("claim", "forged-claim")


def slates(data: bytes) -> None:
    """What anybody who may write to the topic can show to `freshet recommendations`."""
    reader = SlateReader.__new__(SlateReader)
    reader._key = b"ann"
    reader._validator = jsonschema_rs.validator_for(schema("recommendation"))
    slate = reader._slate(Said(0, 1, NOW, b"ann", data, []))
    assert slate is None or isinstance(slate["seq"], int)


def strict_json(data: bytes) -> None:
    with suppress(ValueError):
        parse(data)


def csv_ratings(data: bytes) -> None:
    _in_file("ratings.csv", b"userId,movieId,rating,timestamp\n" + data, _read)


def reviews(data: bytes) -> None:
    _in_file("reviews.jsonl", data, _read)


def sequences(data: bytes) -> None:
    _in_file("sequences.txt", data, _read)


def messages(data: bytes) -> None:
    def one(path: Path) -> None:
        (path.parent / "items.jsonl").write_bytes(b'{"item": "a", "title": "A"}\n')
        _read(path.parent)

    _in_file("clicks.jsonl", data, one)


def _read(path: Path) -> None:
    with suppress(DataError):
        data = read(path)
        assert all(math.isnan(value) or math.isfinite(value) for value in data.events["value"].to_list() if value)


def _in_file(name: str, data: bytes, use: Callable[[Path], None]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(data)
        use(path)


def _json(**fields: Any) -> bytes:
    return json.dumps(fields).encode()


TARGETS: Final[dict[str, Callable[[bytes], None]]] = {
    target.__name__: target
    for target in (
        events, items, states, claim, writer, slates, letter, toml, environment, token, manifest,
        graphs, arrays, pointer, ledger, corrections,
        strict_json, csv_ratings, reviews, sequences, messages,
    )
}  # fmt: skip

_EVENT: Final = {"user": "ann", "item": "i", "time": 5}
_JSON: Final = (
    b"{}", b"[]", b"null", b'"', b"1e400", b"-0", DEEP, b'{"a":' * 50_000, b"[1e400]", b"\xff", b'"\xed\xa0\x80"', b'"\\ud800"',
)  # fmt: skip
SEEDS: Final[dict[str, tuple[bytes, ...]]] = {
    "events": (
        _json(**_EVENT), _json(**_EVENT, value=3.5, text="t", scene="home", rank=1, dwell_ms=5, id="e", action="cart"),
        b'{"user":"ann","user":"bob","item":"i","time":5.0}', b'{"user":"ann","item":"i","time":1e400}', *_JSON,
    ),
    "items": (_json(item="a", title="A", text="t", categories=["c"], available=False), *_JSON),
    "states": (state_module.encode(state_module.new(b"m" * 16, 4)), b"\x01" * 200),
    "claim": (_json(epoch=1, worker="w", time=1, topics={"clicks": "id"}), b"9" * 30, b'{"epoch":1,"worker":"\xe3","time":1}',
              "\u0661".encode(), b"-1", *_JSON),
    "letter": (b"clicks|0|1|decode|reason|field|message|1|false", b"clicks|0|1|||||true", b"\xff|\xff"),
    "toml": (b'brokers = "a:1"\npartitions = 3', b"rating_scale = [1, 2]", b"x = " + DEEP, b"a.b.c = 1", b"\xef\xbb\xbf",
             b"partitions = inf", b"partitions = 1979-05-27", b"partitions = " + b"9" * 5000),
    "environment": (b"[1, 2]", b"[1, NaN]", b"9" * 5000, b"1e400", DEEP),
    "token": (b"a.b.c\n", b"\x00", b"a b"),
    "manifest": (b'{"schema": 2, "opset": 20}', b'{"schema": 2, "opset": 20, "files": {}}', *_JSON),
    "graphs": (b"\x08\x08\x3a\x02\x0a\x00\x42\x02\x10\x14", b"\x3a" + b"\xff" * 9, b"\x0a" * 100),
    "arrays": (b"\x93NUMPY\x01\x00v\x00{'descr': '<f4', 'fortran_order': False, 'shape': (9999999999999,), }", b"PK\x03\x04",
               b"\xff" * 16, (2**63).to_bytes(8, "little") + b"{}", (2).to_bytes(8, "little") + b"{}", b'["a", "b"]', *_JSON),
    "pointer": (b"a" * 64, b"../" * 20, b"\xff" * 64),
    "corrections": (_json(topic="clicks", partition=0, offset=1, key="a", value={"a": 1}), b'{"topic":"t","key":"\\ud800"}',
                    *_JSON),
    "writer": (_json(epoch=1, worker="w", time=1), b'{"epoch": 1e400}', b'{"epoch": true}', *_JSON),
    "slates": (_json(seq=1, user="ann"), b'{"seq": "1"}', b'{"seq": NaN}', *_JSON),
    "ledger": (_json(id="1", topic="clicks", partition=0, offset=1, key="a", sha256="00", status="acked"),
               b'{"id":1,"topic":"clicks","partition":1e400,"key":null,"sha256":"00","status":"acked"}',
               b'{"id":1,"topic":"\\ud800","key":"\\ud800","sha256":"00","status":"acked"}', *_JSON),
    "strict_json": _JSON,
    "csv_ratings": (b"1,2,3.5,4\n", b"1,2,nan,4\n", b"1,2,3.5,1e400\n", b"1,2,3.5," + b"9" * 30, b'"', b"\0", b"1,2,3.5,inf\n"),
    "reviews": (_json(user_id="u", item_id="p", rating=5, timestamp_ms=5, review_text="t", title="T"),
                b'{"user_id":"u","item_id":"p","rating":5,"timestamp_ms":1e400,"text":"t","title":"T"}',
                b'{"user_id":"\\ud800","item_id":"p","rating":5,"timestamp_ms":1,"review_text":"\\ud800","title":"\\ud800"}',
                b'{"user_id":"u","item_id":"p","rating":5,"timestamp_ms":' + b"9" * 30 + b',"text":"t","title":"T"}', *_JSON),
    "sequences": (b"1 2 3\n2 3\n", b"a\n", b"\0 \0\n", b"\xff"),
    "messages": (_json(**_EVENT) + b"\n", _json(user="ann", item="i", time=2**63 - 1), *_JSON),
}  # fmt: skip


def mutated(seeds: Iterable[bytes]) -> st.SearchStrategy[bytes]:
    """Seeds as they are, with a part replaced, cut or repeated; JSON of any shape; any bytes."""

    def change(parts: tuple[bytes, int, int, bytes]) -> bytes:
        seed, first, last, middle = parts
        length = len(seed) + 1
        first, last = sorted((first % length, last % length))
        return seed[:first] + middle + seed[last:]

    short = [seed[:2000] for seed in seeds]
    change_one = st.tuples(st.sampled_from(short), st.integers(0), st.integers(0), st.binary(max_size=20)).map(change)
    scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
    fields = st.sampled_from(["user", "item", "time", "value", "text", "id", "epoch", "title", "status", "schema", "x"])
    shaped = st.recursive(
        scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(fields, inner, max_size=6)
    )
    return change_one | shaped.map(lambda value: json.dumps(value).encode()) | st.binary(max_size=200)


def by_hypothesis(name: str, seconds: float) -> None:
    """Mutate for about so many seconds. Raises what the parser raised."""
    import time

    end = time.monotonic() + seconds

    @settings(max_examples=2000, deadline=None, database=None, suppress_health_check=list(HealthCheck),
              phases=[Phase.generate, Phase.shrink])  # fmt: skip
    @given(mutated(SEEDS[name]))
    def run(data: bytes) -> None:
        if time.monotonic() < end:
            TARGETS[name](data)

    while time.monotonic() < end:
        run()


def by_atheris(name: str, seconds: float) -> int:
    """In a process of its own, since libFuzzer ends it -> its exit code."""
    with tempfile.TemporaryDirectory() as corpus:
        for number, seed in enumerate(SEEDS[name]):
            (Path(corpus) / str(number)).write_bytes(seed[:4096])
        limit = [
            f"-max_total_time={int(seconds)}",
            "-max_len=4096",
            "-rss_limit_mb=4096",
            "-verbosity=0",
            "-print_final_stats=1",
            f"-artifact_prefix={corpus}/",
        ]
        done = subprocess.run([sys.executable, "-m", "tests.fuzz", "--atheris", name, corpus, *limit], check=False)
    return done.returncode


def _atheris(name: str, arguments: list[str]) -> None:
    import atheris

    atheris.instrument_func(TARGETS[name])
    for module in (bundle, fencing_log, onnx_check, state_module, security, json):
        for found in vars(module).values():
            if callable(found) and getattr(found, "__module__", "") == module.__name__ and hasattr(found, "__code__"):
                atheris.instrument_func(found)
    atheris.Setup([name, *arguments], TARGETS[name])
    atheris.Fuzz()


def main() -> None:
    if sys.argv[1:2] == ["--atheris"]:
        _atheris(sys.argv[2], sys.argv[3:])
        return
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 300.0
    names = sys.argv[2:] or list(TARGETS)
    each = seconds / len(names)
    try:
        import atheris  # noqa: F401
    except ImportError:
        guided = False
    else:
        guided = True
    print(f"{len(names)} targets, {each:.0f} s each, by {'atheris' if guided else 'Hypothesis'}", flush=True)
    for name in names:
        for seed in SEEDS[name]:
            TARGETS[name](seed)
        if guided:
            if code := by_atheris(name, each):
                sys.exit(code)
        else:
            by_hypothesis(name, each)
        print(f"{name}: nothing found", flush=True)


if __name__ == "__main__":
    main()
