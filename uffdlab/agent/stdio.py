"""The agent on its own stdin and stdout: ``python -m uffdlab.agent.stdio``, on a host that does other things too."""

from __future__ import annotations

import os
import signal

from uffdlab.agent import server


def main() -> None:
    """Serve until stdin ends.  A stray print goes to stderr: the real stdout is the protocol's alone."""
    read_fd, write_fd = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    server.serve(read_fd, write_fd)


if __name__ == "__main__":
    main()
