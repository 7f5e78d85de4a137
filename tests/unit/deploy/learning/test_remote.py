"""Bundles at other addresses: whole, CURRENT last, safe to repeat. In memory, and on a local S3 where moto and s3fs are."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deploy.learning.remote import Remote
from stream.core.errors import DataError, DiskError

BUNDLE = "a" * 64


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / BUNDLE
    made.mkdir()
    for name in ("manifest.json", "items.npy", "step.onnx"):
        (made / name).write_bytes(name.encode() * 1000)
    return made


@pytest.fixture(params=["memory", "s3", "file"])
def address(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    if request.param == "memory":
        yield f"memory://{tmp_path.name}/bundles"
        return
    if request.param == "file":
        yield (tmp_path / "elsewhere").as_uri()
        return
    pytest.importorskip("s3fs")
    server: Any = pytest.importorskip("moto.server").ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in (
        ("AWS_ENDPOINT_URL", f"http://{host}:{port}"),
        ("AWS_ACCESS_KEY_ID", "test"),
        ("AWS_SECRET_ACCESS_KEY", "test"),
        ("AWS_DEFAULT_REGION", "us-east-1"),
    ):
        monkeypatch.setenv(name, value)
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()
    s3fs.S3FileSystem().mkdir("bucket")
    yield "s3://bucket/bundles"
    s3fs.S3FileSystem.clear_instance_cache()
    server.stop()


def test_a_bundle_arrives_whole_and_then_becomes_current(address: str, folder: Path) -> None:
    remote = Remote(address)
    assert remote.current() == ""
    for _ in range(2):
        remote.send(folder)
        assert remote.current() == BUNDLE
    files, root = remote._files, remote._root
    for path in folder.iterdir():
        assert files.cat_file(f"{root}/{BUNDLE}/{path.name}") == path.read_bytes()
    remote.remove(BUNDLE)
    assert not files.exists(f"{root}/{BUNDLE}/manifest.json")
    remote.remove(BUNDLE)


def test_nothing_becomes_current_that_did_not_arrive(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    remote = Remote(f"memory://{folder.parent.name}")
    order: list[str] = []
    write = remote._files.pipe_file

    def broken(path: str, content: bytes) -> None:
        order.append(path.rsplit("/", 1)[1])
        write(path, content[:-1] if path.endswith("manifest.json") else content)

    monkeypatch.setattr(remote._files, "pipe_file", broken)
    with pytest.raises(DiskError, match=r"cannot be written: OSError: manifest.json is not there as it was sent"):
        remote.send(folder)
    assert order == ["items.npy", "step.onnx", "manifest.json"]
    assert remote.current() == ""


def test_an_address_without_a_driver_is_named() -> None:
    with pytest.raises(DataError, match="nothing://x: Protocol not known: nothing"):
        Remote("nothing://x")
