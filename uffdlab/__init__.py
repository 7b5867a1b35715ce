"""uffdlab: a lab bench for userfaultfd — choose a kernel, touch a page, see every bit of its page-table entry change.

The names in ``__all__`` are the public interface.  Each is loaded when first used, so that ``uffdlab.agent`` in a guest
needs neither numpy nor matplotlib.
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
    from uffdlab.observations.snapshot import Snapshot
    from uffdlab.pte import State
    from uffdlab.target.region import PageRange, Region
    from uffdlab.target.touch import Touch
    from uffdlab.target.userfaultfd import Userfaultfd
    from uffdlab.uapi.messages import Fault

__version__ = "0.1.0"

_WHERE = {
    "AgentError": "errors",
    "Fault": "uapi.messages",
    "FaultUnresolved": "errors",
    "IoctlError": "errors",
    "KernelError": "errors",
    "Lab": "lab",
    "LabClosed": "errors",
    "MachineError": "errors",
    "PageRange": "target.region",
    "ProgramError": "errors",
    "Region": "target.region",
    "Snapshot": "observations.snapshot",
    "State": "pte",
    "TargetLost": "errors",
    "Touch": "target.touch",
    "TouchFailed": "errors",
    "UffdlabError": "errors",
    "UsageError": "errors",
    "Userfaultfd": "target.userfaultfd",
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
    import importlib  # noqa: PLC0415 - the agent imports this package too, and does not need importlib

    value = getattr(importlib.import_module(f"{__name__}.{_WHERE[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
