"""A lab whose agent runs on this host, without a VM: for what depends on no particular kernel."""

import os
import socket
import subprocess
import sys

import pytest

from uffdlab.errors import AgentError, MachineLost, MachineTimeout, ProtocolError
from uffdlab.lab import Lab
from uffdlab.machines.rpc import Client


class HostMachine:
    """The agent as a child process of the test."""

    name = "host"
    physical = None

    def __init__(self):
        ours, theirs = socket.socketpair()
        program = f"from uffdlab.agent.server import serve; serve({theirs.fileno()}, {theirs.fileno()})"
        self._agent = subprocess.Popen(
            [sys.executable, "-c", program],
            pass_fds=[theirs.fileno()],
        )
        theirs.close()
        self._client = Client(ours, lost=MachineLost, late=MachineTimeout, malformed=ProtocolError)
        self.hello = self._client.hello(20)
        self.notify_to = self._client.subscribe

    def call(self, method, /, *args, deadline=10.0):
        return self._client.call(method, args, deadline)

    def console(self):
        return ""

    def close(self):
        self._client.close(MachineLost("closed"))
        self._agent.wait(10)


@pytest.fixture(scope="module")
def host_lab():
    if os.uname().sysname != "Linux":
        pytest.skip("the agent needs Linux")
    with Lab("this host", machine=HostMachine()) as lab:
        try:
            lab.userfaultfd().close()
        except AgentError as error:
            pytest.skip(f"no userfaultfd on this host: {error}")
        yield lab


@pytest.fixture
def mortal_lab():
    """One of the test's own, which it may end in any way."""
    with Lab("this host", machine=HostMachine()) as lab:
        yield lab
