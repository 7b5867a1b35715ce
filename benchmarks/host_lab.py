"""A lab whose agent runs on this host: what the client costs, without what emulation costs."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from uffdlab.errors import MachineLost, MachineTimeout, ProtocolError
from uffdlab.lab import Lab
from uffdlab.machines.rpc import Client


class _HostMachine:
    name = "host"
    physical = None

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        program = f"from uffdlab.agent.server import serve; serve({theirs.fileno()}, {theirs.fileno()})"
        self._agent = subprocess.Popen([sys.executable, "-c", program], pass_fds=[theirs.fileno()])
        theirs.close()
        self._client = Client(ours, lost=MachineLost, late=MachineTimeout, malformed=ProtocolError)
        self.hello = self._client.hello(20)
        self.notify_to = self._client.subscribe

    def call(self, method: str, /, *args: Any, deadline: float = 10.0) -> Any:
        return self._client.call(method, args, deadline)

    def console(self) -> str:
        return ""

    def close(self) -> None:
        self._client.close(MachineLost("closed"))
        self._agent.wait(10)


@contextmanager
def host_lab() -> Iterator[Lab]:
    """Start one, and end it."""
    with Lab("this host", machine=_HostMachine()) as lab:  # type: ignore[arg-type]
        yield lab
