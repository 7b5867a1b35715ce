"""An agent at the other end of a process's stdin and stdout: on this host, or through ssh.

The process's stdin and stdout are one socket that carries the protocol and nothing else; its stderr is the machine's
console.  When the stream ends the process has a moment to put away what it made; then it is killed.
"""

from __future__ import annotations

import shutil
import socket
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Self

from uffdlab import errors
from uffdlab.machines.console import Console
from uffdlab.machines.kept import KeptMachine
from uffdlab.machines.process import KeptProcess

if TYPE_CHECKING:
    from collections.abc import Sequence

_GRACE = 2.0  # seconds; an agent whose stream has ended needs some milliseconds


class StreamMachine(KeptMachine):
    """A machine whose agent speaks on the stdin and stdout of a process.

    Also a context manager.  A subclass may override :meth:`_prepare`.

    Parameters
    ----------
    command : sequence of str
        A program in PATH, or its path, and its arguments.  In the end it runs :func:`uffdlab.agent.stdio.main`.
    name : str
        What sort of machine it is.

    Raises
    ------
    HostUnsupported
        The program is not there.
    """

    physical = None

    def __init__(self, command: Sequence[str], name: str) -> None:
        self.name = name
        self._program = Path(command[0]).name
        found = shutil.which(command[0])
        if found is None:
            raise errors.HostUnsupported(f"{command[0]} is not in PATH; install it", missing=self._program)
        log = Console()
        with ExitStack() as undo:
            ours, theirs = (undo.enter_context(end) for end in socket.socketpair())
            process = KeptProcess([str(Path(found).absolute()), *command[1:]], log=log, stdio=theirs, grace=_GRACE)
            undo.callback(process.kill)
            theirs.close()
            self._process, self._console = process, log
            self._prepare(ours)
            super().__init__(process, ours, log, ExitStack())
            undo.pop_all()

    def _prepare(self, stream: socket.socket) -> None:
        """Do what must be done on the stream before the protocol begins; what this raises ends the process."""

    def up(self, deadline: float = 20.0) -> Self:
        """Wait until the agent has said hello; close the machine if it does not within so many seconds.

        Raises
        ------
        MachineError
            It did not come up; has what the process said.
        """
        try:
            self.wait_for_hello(deadline)
        except BaseException:
            self.close()
            raise
        return self
