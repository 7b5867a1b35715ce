"""The round trip of one remote call."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import msgpack
from harness import Row, median_seconds

from uffdlab import Lab
from uffdlab.uapi.protocol.agent import Ping

KERNEL = "6.1-series"
RUNS = 300


def rows() -> Iterator[Row]:
    """Ping the agent in the guest; the peer is another process on this host that sends back what it receives."""
    with Lab(KERNEL) as lab:
        value = median_seconds(lambda: lab.ask(Ping(1)), runs=RUNS, warmup=20)
    yield Row("one RPC", value * 1e6, "µs", "echo over a socketpair", _echo() * 1e6)


def _echo() -> float:
    ours, theirs = socket.socketpair()
    if os.fork() == 0:
        ours.close()
        while data := theirs.recv(4096):
            theirs.sendall(data)
        os._exit(0)
    theirs.close()
    request = msgpack.packb([0, 1, "agent.ping", [1]])

    def round_trip() -> None:
        ours.sendall(request)
        msgpack.unpackb(ours.recv(4096))

    value = median_seconds(round_trip, runs=RUNS, warmup=20)
    ours.close()
    os.wait()
    return value
