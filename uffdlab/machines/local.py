"""The host's own kernel as a machine: no VM and no root, for a host whose kernel has the features."""

from __future__ import annotations

import sys

from uffdlab.machines.python_modules import module_path
from uffdlab.machines.stream import StreamMachine

# The agent finds modules where this interpreter does.
_PROGRAM = """
import sys
sys.path[:] = sys.argv[1:]
from uffdlab.agent.stdio import main
main()
"""


def start(*, deadline: float = 20.0) -> StreamMachine:
    """Start an agent on this host and wait until it answers.

    Raises
    ------
    MachineError
        The agent did not start.  The error has its stderr.
    """
    command = [sys.executable, "-ISB", "-X", "utf8", "-c", _PROGRAM, *module_path()]
    return StreamMachine(command, "local").wait_until_started(deadline)
