"""An agent at the other end of a process's stdin and stdout: on this host, or through ssh.

The process's stdin and stdout are one socket that carries only the protocol.  Its stderr is the machine's console.
When the stream ends, the process has a grace period to clean up before it is killed.
"""

from __future__ import annotations

import errno
import os
import shutil
import socket
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Self

from uffdlab import errors
from uffdlab.machines.base import BaseMachine
from uffdlab.processes import limits
from uffdlab.processes.console import Console
from uffdlab.processes.supervised import SupervisedProcess

if TYPE_CHECKING:
    from collections.abc import Sequence

_GRACE = 2.0  # seconds; an agent whose stream has ended needs some milliseconds


class StreamMachine(BaseMachine):
    """A machine whose agent uses the stdin and stdout of a process.

    Also a context manager.  A subclass may override :meth:`_prepare`.

    Parameters
    ----------
    command : sequence of str
        A program in PATH, or its path, and its arguments.  It must run :func:`uffdlab.agent.stdio.main`.
    name : str
        The kind of machine.

    Raises
    ------
    HostUnsupported
        The program is missing, or this user cannot run it, or this process has no descriptors or memory left.
    """

    physical = None

    @limits.reported()
    def __init__(self, command: Sequence[str], name: str) -> None:
        self.name = name
        self._program = Path(command[0]).name
        found = _found(command[0], self._program)
        log = Console()
        with ExitStack() as undo:
            ours, theirs = (undo.enter_context(end) for end in socket.socketpair())
            process = SupervisedProcess([found, *command[1:]], log=log, stdio=theirs, grace=_GRACE)
            undo.callback(process.kill)
            theirs.close()
            self._process, self._console = process, log
            self._prepare(ours)
            super().__init__(process, ours, log, ExitStack())
            undo.pop_all()

    def _prepare(self, stream: socket.socket) -> None:
        """Prepare the stream before the protocol begins.  An exception ends the process."""

    def wait_until_started(self, deadline: float = 20.0) -> Self:
        """Wait for the agent's hello, at most `deadline` seconds, and close the machine if it does not come.

        Raises
        ------
        MachineError
            The machine did not start.  The error has the stderr of the process.
        """
        try:
            self.wait_for_hello(deadline)
        except BaseException:
            self.close()
            raise
        return self


def _found(program: str, name: str) -> str:
    found = shutil.which(program)
    if found is not None:
        return str(Path(found).absolute())
    if not os.path.dirname(program):  # noqa: PTH120 - a Path drops a leading ./
        raise errors.HostUnsupported(f"{program} is not in PATH; install it", missing=name)
    real = os.path.realpath(program)
    reason, behind = "it is not an executable program", f" (that is {real})" if real != program else ""
    try:
        Path(program).stat()
        if not os.access(program, os.X_OK):
            reason = os.strerror(errno.EACCES)
    except OSError as error:
        reason = str(error.strerror)
    raise errors.HostUnsupported(f"user {os.geteuid()} cannot run {program}{behind}: {reason}", missing=name)
