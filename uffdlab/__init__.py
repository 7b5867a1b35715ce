"""uffdlab: a lab bench for userfaultfd — choose a kernel, touch a page, see every bit of its page-table entry change.

The names below are all there is to know; they are loaded when first used, so that ``uffdlab.agent`` in a guest needs
neither numpy nor matplotlib.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from uffdlab.errors import (
        AgentError,
        FaultUnresolved,
        IoctlError,
        KernelError,
        LabClosed,
        MachineError,
        ProgramError,
        TargetLost,
        TouchFailed,
        UffdlabError,
        UsageError,
    )
    from uffdlab.figures import compare
    from uffdlab.lab import Lab
    from uffdlab.messages import Fault
    from uffdlab.pte import State
    from uffdlab.region import PageRange, Region
    from uffdlab.snapshot import Snapshot
    from uffdlab.touch import Touch
    from uffdlab.userfaultfd import Userfaultfd

__version__ = "0.1.0"

_WHERE = {
    "AgentError": "errors",
    "Fault": "messages",
    "FaultUnresolved": "errors",
    "IoctlError": "errors",
    "KernelError": "errors",
    "Lab": "lab",
    "LabClosed": "errors",
    "MachineError": "errors",
    "PageRange": "region",
    "ProgramError": "errors",
    "Region": "region",
    "Snapshot": "snapshot",
    "State": "pte",
    "TargetLost": "errors",
    "Touch": "touch",
    "TouchFailed": "errors",
    "UffdlabError": "errors",
    "UsageError": "errors",
    "Userfaultfd": "userfaultfd",
    "compare": "figures",
}

__all__ = [
    "AgentError",
    "Fault",
    "FaultUnresolved",
    "IoctlError",
    "KernelError",
    "Lab",
    "LabClosed",
    "MachineError",
    "PageRange",
    "ProgramError",
    "Region",
    "Snapshot",
    "State",
    "TargetLost",
    "Touch",
    "TouchFailed",
    "UffdlabError",
    "UsageError",
    "Userfaultfd",
    "compare",
]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib  # noqa: PLC0415 - the agent, which starts here too, needs none of it

    value = getattr(importlib.import_module(f"{__name__}.{_WHERE[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
