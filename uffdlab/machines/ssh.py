"""Any Linux that ssh reaches as a machine.  The agent is sent there, and nothing of it remains.

ssh uses its own configuration, keys and agent.  It never asks for a password: a notebook has no terminal to type one.
"""

from __future__ import annotations

import io
import json
import os
import time
import zipfile
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import TYPE_CHECKING, Any

from uffdlab import errors
from uffdlab.agent import deferred
from uffdlab.machines import ssh_bootstrap
from uffdlab.machines.python_modules import modules
from uffdlab.machines.rpc import heartbeat
from uffdlab.machines.stream import StreamMachine

if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence

LEAST_PYTHON = (3, 11)
_LEAST = f"Python {LEAST_PYTHON[0]}.{LEAST_PYTHON[1]} or newer"

_REASON_DEADLINE = 2.0  # seconds to wait for ssh's own error message
_DEADLINE = 30.0  # seconds to send the agent
_MOST_FACTS = 1 << 16  # bytes of a line from the other host
_NEVER_ASK = (
    *("-T", "-o", "BatchMode=yes", "-o", "ConnectTimeout=10"),
    # Notice a broken connection; forward nothing and leave nothing running in the background.
    *("-o", "ServerAliveInterval=5", "-o", "ServerAliveCountMax=3"),
    *("-o", "ClearAllForwardings=yes", "-o", "ControlMaster=no", "-o", "PermitLocalCommand=no"),
)
# Runs the first line of stdin as a program, which reads the rest.  -I: ignore the environment there.
_LOADER = """'import os;exec(os.fdopen(0,"rb",0,closefd=False).readline())'"""
_SENT_WITH_AGENT = {"uffdlab", "msgpack", "_cffi_backend"}

# Texts in ssh's stderr, and what to do.
_ADVICE = (
    (
        "REMOTE HOST IDENTIFICATION HAS CHANGED",
        "its host key is not the one in known_hosts. If you know why: ssh-keygen -R, then connect once by hand",
    ),
    ("Host key verification failed", "its host key is not known here yet; connect once by hand and compare it"),
    (
        "Permission denied (",
        "it accepts none of your keys, and nobody can type a password here: use ssh-copy-id, ssh-add or ~/.ssh/config",
    ),
    ("Connection refused", "no ssh server answers at that port"),
    ("Could not resolve hostname", "there is no such host; is it in ~/.ssh/config?"),
    ("timed out", "that host does not answer"),
    ("No route to host", "that host does not answer"),
    ("not responding", "the connection was lost, or that machine hangs"),
    ("Unknown option: -I", f"its python3 is older than 3.4; the agent needs {_LEAST}"),
    ("annotations is not defined", f"its python3 is older than 3.7; the agent needs {_LEAST}"),
    ("python3: command not found", f"it has no python3 in PATH; the agent needs {_LEAST}"),
    ("python3: not found", f"it has no python3 in PATH; the agent needs {_LEAST}"),
)


class SshMachine(StreamMachine):
    """An agent at the other end of ssh.

    Parameters
    ----------
    destination : str
        As ssh takes it: ``user@host``, or a name of ``~/.ssh/config``.
    options : sequence of str
        More options for ssh, which override the others.
    become : sequence of str
        A command in front of ``python3``, for instance ``("sudo", "-n")``.
    name : str
        The kind of machine.
    """

    def __init__(
        self, destination: str, options: Sequence[str] = (), become: Sequence[str] = (), name: str = "ssh"
    ) -> None:
        if not destination or destination.startswith("-") or any(each.isspace() for each in destination):
            raise errors.UsageError(
                f"{destination!r} is no destination for ssh: give user@host or a name in its configuration"
            )
        self._destination = destination
        command = ["ssh", *options, *_NEVER_ASK, "--", destination, *become, "python3", "-IB", "-c", _LOADER]
        super().__init__(command, name)
        self._resources.callback(heartbeat.start(self._client))

    def _prepare(self, stream: socket.socket) -> None:
        try:
            self._send_agent(stream, time.monotonic() + _DEADLINE)
        except TimeoutError:
            raise errors.MachineTimeout(
                f"{self._destination}: waited {_DEADLINE:g} s for {self._waits_for}: it hangs, or the connection is "
                "too slow. Try it by hand: ssh, then python3",
                console=self._process.stderr(),
            ) from None
        except EOFError:
            self._process.ended.wait(_REASON_DEADLINE)
            raise self._gone("it ended while the agent was sent") from None
        except OSError as error:
            self._process.ended.wait(_REASON_DEADLINE)
            raise self._gone(str(error.strerror)) from None
        except _Unfit as error:
            raise errors.MachineError(f"{self._destination}: {error}", console=self._process.stderr()) from None

    def _send_agent(self, stream: socket.socket, until: float) -> None:
        # Send the agent before the protocol begins.
        self._waits_for = "the python3 there to report its version"
        program = Path(ssh_bootstrap.__file__).read_text(encoding="utf-8")
        _send(stream, f"exec({program!a})\n".encode(), until)
        facts = _receive(stream, until)
        payload = _payload(facts)
        self._waits_for = "the python3 there to receive the agent and load it"
        _send(stream, payload, until)
        failed = _receive(stream, until).get("failed")
        if failed:
            raise _Unfit(
                f"the agent does not load there: {failed}. Its native part was built here, with "
                f"{os.confstr('CS_GNU_LIBC_VERSION')}; there it is {facts.get('libc')}"
            )

    def _gone(self, reason: str) -> errors.UffdlabError:
        error = super()._gone(reason)
        stderr = self._process.stderr()
        advice = next((text for sign, text in _ADVICE if sign in stderr), "")
        return errors.MachineLost(f"ssh {self._destination}: {advice}. {error}") if advice else error


class _Unfit(Exception):
    """The other host cannot run the agent."""


def start(destination: str, *, options: Sequence[str] = (), deadline: float = 20.0) -> SshMachine:
    """Send an agent to `destination` and wait until it answers.

    Raises
    ------
    UsageError
        `destination` is not valid.
    HostUnsupported
        There is no ssh on this host.
    MachineError
        ssh did not connect, or the agent cannot run there.  The message says why and what to do.
    MachineTimeout
        The other host does not answer.
    """
    return SshMachine(destination, options).wait_until_started(deadline)


def _payload(facts: dict[str, Any]) -> bytes:
    python = tuple(int(each) for each in facts["python"])
    version = ".".join(map(str, python))
    if facts["system"] != "Linux":
        raise _Unfit(f"it runs {facts['system']}, and userfaultfd is Linux's")
    if python < LEAST_PYTHON:
        raise _Unfit(f"its python3 is {version}; the agent needs {_LEAST}")
    if facts["machine"] != os.uname().machine:
        host_processor = os.uname().machine
        raise _Unfit(
            f"its processor is {facts['machine']}; the agent's native part was built here, for {host_processor}"
        )
    same = facts["abi"] == EXTENSION_SUFFIXES[0]
    if not same and not facts["cffi"]:
        raise _Unfit(
            f"its Python {version} has no cffi, and that of this host is for another Python: "
            "install python3-cffi-backend there, or cffi with pip"
        )
    archive, native = io.BytesIO(), []
    with zipfile.ZipFile(archive, "w") as file:
        for name, origin, package in modules("uffdlab.agent.stdio", *deferred.NAMES, "msgpack.fallback"):
            if name.partition(".")[0] not in _SENT_WITH_AGENT:
                continue
            data = origin.read_bytes()
            if origin.suffix == ".py":
                path = name.replace(".", "/")
                file.writestr(f"{path}/__init__.py" if package else f"{path}.py", data)
            elif same or ".abi3." in origin.name:
                native.append((name, data))
    header = {
        "archive": len(archive.getvalue()),
        "native": [(name, len(data)) for name, data in native],
        "input_deadline": heartbeat.INPUT_DEADLINE,
    }
    return json.dumps(header).encode() + b"\n" + archive.getvalue() + b"".join(data for _name, data in native)


def _send(stream: socket.socket, data: bytes, until: float) -> None:
    stream.settimeout(max(0.01, until - time.monotonic()))
    try:
        stream.sendall(data)
    except BrokenPipeError:
        raise EOFError from None
    finally:
        stream.settimeout(None)


def _receive(stream: socket.socket, until: float) -> dict[str, Any]:
    # Reads one line of JSON byte by byte, since what follows belongs to the protocol.
    taken = b""
    try:
        while not taken.endswith(b"\n"):
            stream.settimeout(max(0.01, until - time.monotonic()))
            byte = stream.recv(1)
            if not byte:
                raise EOFError
            taken += byte
            if len(taken) > _MOST_FACTS:
                raise ValueError
        found = json.loads(taken)
        if not isinstance(found, dict):
            raise TypeError
    except (ValueError, TypeError):
        raise _Unfit(
            f"another program there writes to the stream before the agent: {taken[:200]!r}. "
            "The start-up files of the shell must print nothing when there is no terminal"
        ) from None
    finally:
        stream.settimeout(None)
    return found
