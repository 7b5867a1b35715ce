"""The host's own kernel as a machine: no VM, no root, for those who run a kernel that can do it all."""

from __future__ import annotations

import sys

from uffdlab.machines.python_modules import module_path
from uffdlab.machines.stream import StreamMachine

# The agent sees the modules that this interpreter sees, wherever they come from.
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
        It did not come up; has what it said.
    """
    command = [sys.executable, "-ISB", "-X", "utf8", "-c", _PROGRAM, *module_path()]
    return StreamMachine(command, "local").up(deadline)
