"""A TCP proxy on loopback that is as bad a line as a test wants: slow, narrow, cut, deaf, or a black hole."""

from __future__ import annotations

import asyncio
import random
import socket
import struct
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

_PIECE: Final = 64 << 10  # bytes of one read
_AHEAD: Final = 64  # pieces of one direction that may be on their way
_RST: Final = struct.pack("ii", 1, 0)  # SO_LINGER on, 0 s: close() sends RST and forgets what is unsent


class Proxy:
    """From 127.0.0.1:`port` to 127.0.0.1:`target`. It keeps order and loses nothing but by `reset`.

    Public fields may be set at any time. latency: seconds that a piece takes one way, at least and at most; each connection
    has a seeded place between the two. bandwidth: bytes a second for each connection and direction; 0: no limit.
    """

    def __init__(self, port: int, target: int, seed: int = 0) -> None:
        self.port, self.target = port, target
        self.latency = (0.0, 0.0)
        self.bandwidth = 0.0
        self._draw = random.Random(seed)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._server: asyncio.Server | None = None
        self._flows = asyncio.Event()  # clear: a black hole
        self._pairs: dict[asyncio.Task[None], list[asyncio.StreamWriter]] = {}

    @property
    def address(self) -> str:
        """host:port for clients."""
        return f"127.0.0.1:{self.port}"

    def start(self) -> Proxy:
        self._thread.start()
        self._call(self._flows.set)
        self.accept()
        return self

    def accept(self) -> None:
        """Take connections (again)."""
        listening = asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self._server = asyncio.run_coroutine_threadsafe(listening, self._loop).result(10)

    def refuse(self) -> None:
        """Take no new connections; those that there are go on."""
        if self._server is not None:
            self._call(self._server.close)
            self._server = None

    def swallow(self) -> None:
        """A black hole: nothing comes through, nobody is told. What is sent meanwhile arrives after `release`, its sender
        alive or not."""
        self._call(self._flows.clear)

    def release(self) -> None:
        self._call(self._flows.set)

    def reset(self) -> int:
        """Cut every connection by RST to both ends; what was on its way is gone -> how many were cut."""
        return int(self._call(self._reset))

    def close(self) -> None:
        """Cut everything and end."""
        if not self._thread.is_alive():
            return
        self.refuse()
        self.reset()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def _call(self, what: Callable[[], Any]) -> Any:
        async def called() -> Any:
            return what()

        return asyncio.run_coroutine_threadsafe(called(), self._loop).result(10)

    def _reset(self) -> int:
        pairs = list(self._pairs.items())
        for task, ends in pairs:
            task.cancel()
            for end in ends:
                with suppress(OSError):
                    end.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RST)
                end.transport.abort()
        return len(pairs)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        ends = self._pairs[task] = [writer]
        share = self._draw.random()
        try:
            up: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_AHEAD)
            async with asyncio.TaskGroup() as group:
                group.create_task(
                    self._read(reader, up, share)
                )  # also in a black hole: its sender may be gone after it
                await self._flows.wait()
                there, onward = await asyncio.open_connection("127.0.0.1", self.target)
                ends.append(onward)
                down: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_AHEAD)
                group.create_task(self._write(up, onward))
                group.create_task(self._read(there, down, share))
                group.create_task(self._write(down, writer))
        except* (OSError, asyncio.CancelledError):
            pass  # one end is gone, or we were told to cut
        finally:
            del self._pairs[task]
            for end in ends:
                end.close()

    async def _read(
        self, reader: asyncio.StreamReader, pieces: asyncio.Queue[tuple[float, bytes]], share: float
    ) -> None:
        """Until the sender is gone, which an empty piece says."""
        piece = b"."
        while piece:
            try:
                piece = await reader.read(_PIECE)
            except OSError:
                piece = b""
            low, high = self.latency
            await pieces.put((time.monotonic() + low + share * (high - low), piece))

    async def _write(self, pieces: asyncio.Queue[tuple[float, bytes]], writer: asyncio.StreamWriter) -> None:
        while True:
            due, piece = await pieces.get()
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            if self.bandwidth:
                await asyncio.sleep(len(piece) / self.bandwidth)
            await self._flows.wait()
            if not piece:
                writer.close()
                return
            writer.write(piece)
            await writer.drain()
