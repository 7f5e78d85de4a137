"""Copies bundles to any address that fsspec knows: s3://, gs://, az://, sftp://, file://, memory://.

Files are written first, manifest.json behind the others, CURRENT last. Object stores show an object as a whole or not at all, so
a reader that begins at CURRENT never sees half a bundle. Copying again is harmless.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

from stream.core.errors import DataError, DiskError
from stream.inference.bundle import CURRENT, MANIFEST


class Remote:
    """One folder of bundles at an address. Its credentials are those that fsspec's driver finds (docs/learn.md).

    Raises DataError if fsspec, or the driver of the address, is not installed or does not know the address.
    """

    def __init__(self, address: str) -> None:
        try:
            from fsspec.core import url_to_fs

            self._files, self._root = url_to_fs(address)
        except ImportError as error:
            raise DataError(f"{address}: {error}; `pip install '.[remote]'` and the driver of the address") from None
        except ValueError as error:
            raise DataError(f"{address}: {error}") from None
        self._address = address

    def current(self) -> str:
        """Return the id that CURRENT holds there; "" if there is none. Raises DiskError."""
        with self._tried("read"):
            path = self._at(CURRENT)
            return self._files.cat_file(path).decode("ascii", "replace").strip() if self._files.exists(path) else ""

    def send(self, folder: Path) -> None:
        """Copy a bundle, compare each file's hash with what arrived, and make it CURRENT there. Raises DiskError."""
        names = sorted(path.name for path in folder.iterdir() if path.name != MANIFEST)
        with self._tried("written"):
            self._files.makedirs(self._at(folder.name), exist_ok=True)
            for name in (*names, MANIFEST):
                content = (folder / name).read_bytes()
                path = self._at(folder.name, name)
                self._files.pipe_file(path, content)
                if sha256(self._files.cat_file(path)).digest() != sha256(content).digest():
                    raise OSError(f"{name} is not there as it was sent")
            self._files.pipe_file(self._at(CURRENT), folder.name.encode() + b"\n")

    def remove(self, bundle: str) -> None:
        """Delete a bundle there; its manifest first, so that what is left is no bundle. Raises DiskError."""
        with self._tried("written"):
            if self._files.exists(self._at(bundle, MANIFEST)):
                self._files.rm_file(self._at(bundle, MANIFEST))
            if self._files.exists(self._at(bundle)):
                self._files.rm(self._at(bundle), recursive=True)

    def _at(self, *names: str) -> str:
        return "/".join((self._root.rstrip("/"), *names))

    @contextmanager
    def _tried(self, what: str) -> Iterator[None]:
        """Turn what a driver raises into a DiskError: each has errors of its own."""
        try:
            yield
        except Exception as error:
            raise DiskError(f"{self._address} cannot be {what}: {type(error).__name__}: {error}") from None
