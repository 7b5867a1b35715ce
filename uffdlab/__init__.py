"""uffdlab: a lab bench for userfaultfd — choose a kernel, touch a page, see every bit of its page-table entry change.

The names in ``__all__`` are the public interface.  Each is loaded when first used, so that ``uffdlab.agent`` in a guest
needs neither numpy nor matplotlib.
"""

from __future__ import annotations

import sys

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
    from uffdlab.open_labs import close_all, labs
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
    "close_all": "open_labs",
    "compare": "figures",
    "labs": "open_labs",
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
    "close_all",
    "compare",
    "labs",
]


def __getattr__(name: str) -> Any:
    if name.startswith("_"):  # many programs ask for such names, and expect that they are not there
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name in _WHERE:
        globals()[name] = value = getattr(_module(_WHERE[name]), name)
        return value
    try:
        return _module(name)
    except ModuleNotFoundError as error:
        if error.name != f"{__name__}.{name}":
            raise
    unknown_name: AttributeError = _module("arguments").unknown_name(name, __all__)
    raise unknown_name


def _module(name: str) -> Any:
    # Without importlib, which the agent need not load.
    __import__(f"{__name__}.{name}")
    return sys.modules[f"{__name__}.{name}"]


def __dir__() -> list[str]:
    return sorted([*__all__, "__all__", "__doc__", "__file__", "__name__", "__path__", "__version__"])


if "IPython" in sys.modules and (_shell := sys.modules["IPython"].get_ipython()) is not None:
    _module("jupyter").install(_shell)
