"""The minder: a small program between a build and its make, so that make ends in good order when the build is killed.

``minder.py OWNER OUTPUT GRACE MARKER COMMAND…`` runs the command as its child and ends as it ended.  It leads the
process group of both.  When the process OWNER is killed, and the kernel sends the minder SIGTERM for that, all of the
group get it, so that make deletes its half-made targets; after GRACE seconds they are killed.  The descriptor OUTPUT is
the read end of their output, read from here when nobody else does any more: else make would die of SIGPIPE at its
first word.

When the command has ended, and was not killed outright, the file MARKER is removed.

It runs as ``python -ISB minder.py`` and imports nothing of uffdlab.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys

_LOOK = 0.1  # s between two looks whether the command has ended


class _Minder:
    def __init__(self, owner: int, output: int, grace: float, child: int) -> None:
        self._owner = owner
        self._output = output
        self._grace = grace
        self._child = child
        self._told = False
        self._status = 0

    def on_sigterm(self, _number: int, _frame: object) -> None:
        # The owner signals the whole group itself; only once in any case, for make takes a second one as the last.
        told, self._told = self._told, True
        if told or os.getppid() == self._owner:
            return
        signal.setitimer(signal.ITIMER_REAL, self._grace)
        os.killpg(0, signal.SIGTERM)
        while not self._ended():
            if select.select([self._output], [], [], _LOOK)[0]:
                os.read(self._output, 1 << 16)

    def _ended(self) -> bool:
        pid, self._status = os.waitpid(self._child, os.WNOHANG)
        return bool(pid)

    def wait(self) -> int:
        # The command's wait status.
        try:
            return os.waitpid(self._child, 0)[1]
        except ChildProcessError:  # the lines above have it
            return self._status


def main() -> None:
    """Run, wait, end likewise."""
    owner, output, grace, marker = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), sys.argv[4]
    command = sys.argv[5:]
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    child = os.fork()
    if child == 0:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        os.close(output)
        try:
            os.execvp(command[0], command)  # noqa: S606 - that is what a minder does
        except OSError as error:
            os.write(2, f"{command[0]}: {error.strerror}\n".encode())
            os._exit(127)
    minder = _Minder(owner, output, grace, child)
    signal.signal(signal.SIGTERM, minder.on_sigterm)
    signal.signal(signal.SIGALRM, lambda *_: os.killpg(0, signal.SIGKILL))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
    if os.getppid() != owner:  # killed before the lines above
        minder.on_sigterm(signal.SIGTERM, None)
    code = os.waitstatus_to_exitcode(minder.wait())
    if code != -signal.SIGKILL:
        with contextlib.suppress(OSError):
            os.unlink(marker)  # noqa: PTH108 - pathlib takes longer to import than all else here
    if code < 0:
        with contextlib.suppress(OSError):  # SIGKILL has no other way
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code if code >= 0 else 128 - code)


if __name__ == "__main__":
    main()
