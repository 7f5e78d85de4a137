"""Fixtures that all tests share: one real Kafka a test run, settings with topics of their own, the data folders."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from shutil import copytree
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings as hypothesis_settings

from stream.settings import Settings

if TYPE_CHECKING:
    from tests.activations import ThreeBundles

ROOT = Path(__file__).resolve().parent.parent

hypothesis_settings.register_profile("untimed", hypothesis_settings(), deadline=None)  # a busy machine fails no test
hypothesis_settings.load_profile("untimed")

# The modules and packages that tests share show both sides of a failed assertion, too.
pytest.register_assert_rewrite(
    *(f"tests.{found.stem}" for found in (ROOT / "tests").glob("[a-z]*") if found.stem != "conftest")
)


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """One embedded Apache Kafka for the whole run."""
    from deploy.embedded_kafka import EmbeddedKafka

    broker = EmbeddedKafka(tmp_path_factory.mktemp("kafka"))
    broker.start()
    yield broker
    broker.stop()


@pytest.fixture(scope="session")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """One embedded Kafka that wants SASL_SSL and denies what no ACL allows."""
    from tests.secured_kafka import SecuredKafka

    with SecuredKafka(tmp_path_factory.mktemp("secured")) as broker:
        yield broker


@pytest.fixture
def failing(tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Make brokers of the test's own, which it may stop: failing(lines=2, seed=3), running until the test's end."""
    from tests.failing_kafka import FailingKafka

    with ExitStack() as running:
        made = itertools.count()
        yield lambda **values: running.enter_context(FailingKafka(tmp_path / f"kafka-{next(made)}", **values))


@pytest.fixture
def failing_cluster(tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Make a cluster of the test's own: failing_cluster(behind=2, seed=3), running until the test's end."""
    from tests.failing_cluster import FailingCluster

    with ExitStack() as running:
        yield lambda **values: running.enter_context(FailingCluster(tmp_path / "cluster", **values))


@pytest.fixture
def world(kafka: Any) -> Callable[..., Settings]:
    """Make settings with topics of their own on the shared broker: world(partitions=2, ...)."""
    from tests.settings import with_own_topics

    return partial(with_own_topics, kafka.bootstrap)


def data_folder(name: str) -> Path:
    """A data set's folder: below FRESHET_DATA, else below shared/data beside the repository. Skips where it is absent."""
    below = Path(os.environ.get("FRESHET_DATA") or ROOT.parent / "shared" / "data")
    folder = below / name
    if not folder.is_dir():
        pytest.skip(f"data set {name} is not there; FRESHET_DATA names the folder that holds it")
    return folder


@pytest.fixture(scope="session")
def movielens() -> Path:
    """The folder ml-latest-small."""
    return data_folder("ml-latest-small")


@pytest.fixture(scope="session")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundles folder with CURRENT: a tiny network over item-1 .. item-50, real BERT."""
    folder = tmp_path_factory.mktemp("bundles")
    copytree(_made_once(tmp_path_factory, "bundles"), folder, dirs_exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def text_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the tiny bundle with a text term (tests.bundles.TEXT_BLEND)."""
    from stream.inference.bundle import current

    return current(_made_once(tmp_path_factory, "text-bundles"))


@pytest.fixture
def three_bundles(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> ThreeBundles:
    """A copy of the test's own."""
    from tests.activations import copied

    return copied(_made_once(tmp_path_factory, "three-bundles"), tmp_path / "bundles")


def _made_once(tmp_path_factory: pytest.TempPathFactory, name: str) -> Path:
    """A bundles folder, made by whichever of the test processes needs it first."""
    from filelock import FileLock

    from tests.activations import three_bundles
    from tests.bundles import text_term_bundle, tiny_bundle

    makers = {"bundles": tiny_bundle, "text-bundles": text_term_bundle, "three-bundles": three_bundles}
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    folder = shared / f"{name}-of-this-run"
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            partial = folder.with_name(f"{folder.name}-partial")
            makers[name](partial)
            partial.rename(folder)
    return folder
