"""The minder: a small program between this one and a command that has something to put away, such as make or vagrant.

``minder.py OWNER OUTPUT[,HELD…] GRACE FAREWELL MARKER COMMAND…`` runs the command as its child and ends as it ended.
It leads the process group of both.  When the process OWNER has ended, however it did, all of the group get the signal
FAREWELL once, unless the owner has sent it already: vagrant takes a second one as the last and puts nothing away.  (The
kernel's parent-death signal does not serve: it comes once for each thread of the owner.)  After GRACE seconds they are
killed.  The descriptor OUTPUT is the read end of their output, read from here when nobody else does any more: else make
would die of SIGPIPE at its first word.  The descriptors HELD, such as a lock, are the minder's and not the command's,
whose daemons would keep them.

When the command has ended, and was not killed outright, the file MARKER is removed, if it has a name.

It runs as ``python -ISB minder.py`` and imports nothing of uffdlab.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import time


class _Minder:
    def __init__(self, owner: int, output: int, grace: float, farewell: int) -> None:
        self._owner = owner
        self._output = output
        self._grace = grace
        self._farewell = farewell
        self._told = False

    def on_farewell(self, _number: int, _frame: object) -> None:
        # The owner, as long as it lives, signals the whole group.
        self._told = True

    def mind(self, child: int) -> int:
        # The command's wait status.
        poll = select.poll()
        ended = os.pidfd_open(child)
        poll.register(ended, select.POLLIN)
        if self._owner_first(poll, ended):
            poll.register(self._output, select.POLLIN)
            until = time.monotonic() + self._grace
            while (rest := until - time.monotonic()) > 0:
                ready = dict(poll.poll(rest * 1000))
                if ended in ready:
                    break
                if self._output in ready:
                    os.read(self._output, 1 << 16)
            else:
                os.killpg(0, signal.SIGKILL)
        return os.waitpid(child, 0)[1]

    def _owner_first(self, poll: select.poll, ended: int) -> bool:
        # Wait for the first of the two to end, and tell the command if it is the owner.
        try:
            owner = os.pidfd_open(self._owner)
        except ProcessLookupError:
            owner = -1
        if owner >= 0 and os.getppid() == self._owner:  # else it ended before, and the pidfd may be another's
            poll.register(owner, select.POLLIN)
            if ended in dict(poll.poll()):
                return False
            poll.unregister(owner)
        if not self._told:
            os.killpg(0, self._farewell)
        return True


def _command(argv: list[str], held: list[int], farewell: int) -> None:
    # In the child: become the command.
    for number in (farewell, signal.SIGPIPE):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [farewell])
    for descriptor in held:
        os.close(descriptor)
    try:
        os.execvp(argv[0], argv)  # noqa: S606 - that is what a minder does
    except OSError as error:
        os.write(2, f"{argv[0]}: {error.strerror}\n".encode())
        os._exit(127)


def main() -> None:
    """Run, wait, end likewise."""
    owner, grace, farewell = int(sys.argv[1]), float(sys.argv[3]), int(sys.argv[4])
    held = [int(number) for number in sys.argv[2].split(",")]
    marker, command = sys.argv[5], sys.argv[6:]
    minder = _Minder(owner, held[0], grace, farewell)
    signal.pthread_sigmask(signal.SIG_BLOCK, [farewell])
    signal.signal(farewell, minder.on_farewell)
    child = os.fork()
    if child == 0:
        _command(command, held, farewell)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [farewell])
    code = os.waitstatus_to_exitcode(minder.mind(child))
    if code != -signal.SIGKILL and marker:
        with contextlib.suppress(OSError):
            os.unlink(marker)  # noqa: PTH108 - pathlib takes longer to import than all else here
    if code < 0:
        with contextlib.suppress(OSError):  # SIGKILL has no other way
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code if code >= 0 else 128 - code)


if __name__ == "__main__":
    main()
