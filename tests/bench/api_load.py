"""Requests to a gateway, from a process of their own: python -m tests.bench.api_load '{"port": ..., ...}'

Keep-alive connections, each with one request at a time. With a rate, request n is due at start + n / rate, whatever the
server does, and its latency counts from then; without one, each connection sends as fast as it is answered. Prints one
line of JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from dataclasses import asdict, dataclass

import numpy as np


@dataclass(frozen=True)
class Load:
    """rate: requests a second, 0 for as many as possible; skip: seconds at the beginning that are left out; path: of each
    address, with {user}; query: of each address."""

    port: int
    connections: int
    seconds: float
    users: tuple[str, ...]
    rate: float = 0.0
    skip: float = 1.0
    query: str = ""
    path: str = "/v1/users/{user}/recommendations"

    def text(self) -> str:
        return json.dumps(asdict(self))


@dataclass(frozen=True)
class Told:
    """Latencies in milliseconds; wrong: answers other than 200."""

    requests: int
    wrong: int
    per_second: float
    p50: float
    p99: float
    most: float


async def run(load: Load) -> Told:
    began = time.perf_counter()
    latencies: list[float] = []
    wrong = 0
    numbers = iter(range(1 << 60))
    query = f"?{load.query}" if load.query else ""

    async def one(number: int) -> None:
        nonlocal wrong
        reader, writer = await asyncio.open_connection("127.0.0.1", load.port)
        while (now := time.perf_counter()) < began + load.seconds:
            number = next(numbers)
            due = now
            if load.rate:
                due = began + number / load.rate
                await asyncio.sleep(max(0.0, due - now))
            path = load.path.format(user=load.users[number % len(load.users)])
            writer.write(f"GET {path}{query} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
            head = await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]))
            if due >= began + load.skip:
                latencies.append(time.perf_counter() - due)
                wrong += not head.startswith(b"HTTP/1.1 200")
        writer.close()

    await asyncio.gather(*(one(number) for number in range(load.connections)))
    spent = time.perf_counter() - began - load.skip
    p50, p99, most = (np.percentile(latencies, (50, 99, 100)) * 1000).tolist()
    return Told(len(latencies), wrong, len(latencies) / spent, p50, p99, most)


if __name__ == "__main__":
    asked = json.load(sys.stdin)  # too long for an argument with many users
    print(json.dumps(asdict(asyncio.run(run(Load(**asked | {"users": tuple(asked["users"])}))))))
