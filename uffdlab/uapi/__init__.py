"""The userfaultfd ABI, for host and guest: flags, ioctls, messages, structures and kinds of memory.

This package also exports the names of :mod:`uffdlab.uapi.flags` and :mod:`uffdlab.uapi.ioctls`, loaded when first used.
Before its hello the agent needs only :mod:`uffdlab.uapi.layout`, and an emulated CPU takes long to import :mod:`enum`.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from uffdlab.uapi.flags import FEATURES_SINCE, Event, FaultFlag, Feature, OpenFlag, flag_names
    from uffdlab.uapi.ioctls import (
        FAULTS,
        IOCTLS,
        ContinueMode,
        CopyMode,
        Ioctl,
        MoveMode,
        NoMode,
        PoisonMode,
        RegisterMode,
        RwprotectMode,
        WriteprotectMode,
        ZeropageMode,
    )

__all__ = [
    "FAULTS",
    "FEATURES_SINCE",
    "IOCTLS",
    "ContinueMode",
    "CopyMode",
    "Event",
    "FaultFlag",
    "Feature",
    "Ioctl",
    "MoveMode",
    "NoMode",
    "OpenFlag",
    "PoisonMode",
    "RegisterMode",
    "RwprotectMode",
    "WriteprotectMode",
    "ZeropageMode",
    "flag_names",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib  # noqa: PLC0415 - the agent imports this package too, and does not need importlib

    flags, ioctls = (importlib.import_module(f"{__name__}.{module}") for module in ("flags", "ioctls"))
    value = getattr(flags if hasattr(flags, name) else ioctls, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
