"""What the Makefile runs before anything is installed: pip's configuration carried to uv, pinned downloads. And the hooks."""

from __future__ import annotations

import hashlib
import io
import tarfile
from pathlib import Path

import pytest
import yaml

from scripts import environment, kubernetes, prometheus
from scripts.prometheus import Archive, Unavailable, WrongHash
from tests.conftest import ROOT


def test_the_environment_wins_over_install_and_that_over_global() -> None:
    listing = ":env:.index-url='https://a/simple'\nglobal.index-url='https://c/simple'\nglobal.cert='/pem'\ninstall.cert='/b'\n"
    assert environment.pip_settings(listing) == {"index-url": "https://a/simple", "cert": "/b"}


def test_uv_is_told_what_pip_was_told() -> None:
    settings = {"index-url": "https://a/simple", "find-links": "/x /y", "cert": "/pem", "quiet": "1"}
    variables = environment.uv_environment(settings, {"PATH": "/bin"})
    assert variables == {
        "PATH": "/bin",
        "UV_INDEX_STRATEGY": "unsafe-best-match",
        "UV_DEFAULT_INDEX": "https://a/simple",
        "UV_FIND_LINKS": "/x,/y",
        "SSL_CERT_FILE": "/pem",
    }


def test_what_is_said_to_uv_itself_stays() -> None:
    variables = environment.uv_environment({"index-url": "https://a/simple"}, {"UV_DEFAULT_INDEX": "https://b/simple"})
    assert variables["UV_DEFAULT_INDEX"] == "https://b/simple"


def test_the_lock_without_torch_lacks_torch_and_cuda_and_nothing_else() -> None:
    lock = (ROOT / "requirements.lock").read_text()
    kept, version = environment.without_torch(lock)
    names = {line.split("==")[0] for line in lock.splitlines() if line[:1].isalnum()}
    left = {line.split("==")[0] for line in kept.splitlines() if line[:1].isalnum()}
    gone = names - left
    assert {"torch", "triton", "nvidia-cublas"} <= gone
    assert all(name in ("torch", "triton") or name.startswith(("nvidia-", "cuda-")) for name in gone)
    assert f"torch=={version} " in lock.replace(";", " ").replace("\\", " ")
    assert kept.count("--hash=") < lock.count("--hash=")
    assert set(kept.splitlines()) <= set(lock.splitlines())


def test_uv_is_pinned_by_hash() -> None:
    lines = [line for line in environment.UV_LOCK.read_text().splitlines() if not line.startswith("#")]
    assert lines[0].startswith("uv==")
    assert all(line.strip().startswith("--hash=sha256:") for line in lines[1:])


def test_the_hooks_before_a_commit_are_the_commands_of_make_lint() -> None:
    recipe = (ROOT / "Makefile").read_text().split("\nlint:")[1].split("\n\n")[0].splitlines()[1:]
    (repository,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    hooks = repository["hooks"]
    assert [hook["entry"] for hook in hooks] == [line.strip().replace("$(BIN)", ".venv/bin") for line in recipe]
    assert repository["repo"] == "local"
    assert {hook["language"] for hook in hooks} == {"system"}, "others are downloaded"


@pytest.fixture
def release(tmp_path: Path) -> Archive:
    """A release below `tmp_path` as the project publishes them."""
    folder = tmp_path / "v1.2.3"
    folder.mkdir()
    file = folder / "prometheus-1.2.3.linux-amd64.tar.gz"
    with tarfile.open(file, "w:gz") as packed:
        for name in ("prometheus", "promtool"):
            content = f"#!/bin/sh\necho {name}\n".encode()
            entry = tarfile.TarInfo(f"prometheus-1.2.3.linux-amd64/{name}")
            entry.size = len(content)
            packed.addfile(entry, io.BytesIO(content))
    return Archive("1.2.3", hashlib.sha256(file.read_bytes()).hexdigest(), "x86_64")


def places(monkeypatch: pytest.MonkeyPatch, *archives: Archive, releases: str) -> None:
    def fetch(folder: Path, unpacked: Path, archive: Archive) -> None:
        prometheus.from_release(folder, unpacked, archive, releases)

    monkeypatch.setattr(
        prometheus,
        "PLACES",
        [(one, lambda folder, unpacked, one=one: fetch(folder, unpacked, one)) for one in archives],
    )
    monkeypatch.setattr(Archive, "fits", lambda self: True)


def test_the_pinned_release_is_unpacked_once(monkeypatch: pytest.MonkeyPatch, release: Archive, tmp_path: Path) -> None:
    places(monkeypatch, release, releases=tmp_path.as_uri())
    target = tmp_path / "tools"
    assert prometheus.bring(target) == "1.2.3"
    assert (target / "bin" / "promtool").stat().st_mode & 0o111
    (tmp_path / "v1.2.3" / "prometheus-1.2.3.linux-amd64.tar.gz").unlink()
    assert prometheus.bring(target) == "1.2.3"  # it was there


def test_another_file_is_refused(monkeypatch: pytest.MonkeyPatch, release: Archive, tmp_path: Path) -> None:
    places(monkeypatch, Archive("1.2.3", "0" * 64, "x86_64"), releases=tmp_path.as_uri())
    with pytest.raises(WrongHash, match=release.sha256):
        prometheus.bring(tmp_path / "tools")
    assert not (tmp_path / "tools" / "bin").exists()


def test_the_next_place_is_tried_and_all_reasons_are_given(
    monkeypatch: pytest.MonkeyPatch, release: Archive, tmp_path: Path
) -> None:
    absent = Archive("9.9.9", "0" * 64, "x86_64")
    places(monkeypatch, absent, release, releases=tmp_path.as_uri())
    assert prometheus.bring(tmp_path / "tools") == "1.2.3"
    places(monkeypatch, absent, absent, releases=tmp_path.as_uri())
    with pytest.raises(Unavailable, match=r"cannot be fetched.*; .*cannot be fetched"):
        prometheus.bring(tmp_path / "other")


def test_an_unknown_machine_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("platform.machine", lambda: "vax")
    with pytest.raises(Unavailable, match="vax"):
        prometheus.bring(tmp_path)


def test_kubernetes_tools_are_pinned_and_what_cannot_be_built_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert all(module.partition("@v")[2][:1].isdigit() for module in kubernetes.TOOLS.values())
    monkeypatch.setenv("PATH", str(tmp_path))
    assert kubernetes.bring(tmp_path / "tools") == ["helm: go is not installed", "kubeconform: go is not installed"]
    go = tmp_path / "go"
    go.write_text('#!/bin/sh\ncase "$2" in helm*) echo "gone" >&2; exit 1;; esac\n: > "$GOBIN/kubeconform"\n')
    go.chmod(0o755)
    assert kubernetes.bring(tmp_path / "tools") == ["helm: go install ended with 1: gone"]
    go.unlink()
    assert kubernetes.bring(tmp_path / "tools") == ["helm: go is not installed"]  # the other is there


def test_the_operators_definitions_are_pinned_and_their_absence_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert kubernetes.OPERATOR.partition("@v")[2][:1].isdigit()
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    monkeypatch.setattr("shutil.which", lambda name: None)
    assert kubernetes.bring_definitions(tmp_path / "tools") == "crds: go is not installed"
    go, module = tmp_path / "go", tmp_path / "module" / "example" / "prometheus-operator-crd"
    monkeypatch.setattr("shutil.which", lambda name: str(go))
    for output, message in (
        ("""echo '{"Error": "no such host"}'; exit 1""", "go mod download ended with 1: no such host"),
        ("echo 'go: a broken setting' >&2; exit 2", "go mod download ended with 2: go: a broken setting"),
    ):
        go.write_text(f"#!/bin/sh\n{output}\n")
        go.chmod(0o755)
        assert kubernetes.bring_definitions(tmp_path / "tools") == f"crds: {message}"
    module.mkdir(parents=True)
    for name in kubernetes.CRDS:
        (module / name).write_text(f"spec of {name}\n")
        (module / name).chmod(0o444)
    go.write_text(f"""#!/bin/sh\necho '{{"Dir": "{tmp_path / "module"}"}}'\n""")
    assert kubernetes.bring_definitions(tmp_path / "tools") == ""
    assert (tmp_path / "tools" / "crds" / kubernetes.CRDS[0]).read_text() == f"spec of {kubernetes.CRDS[0]}\n"
    go.unlink()
    assert kubernetes.bring_definitions(tmp_path / "tools") == ""  # they are there
