"""The userfaultfd ABI, for host and guest: flags, ioctls, messages, structures and kinds of memory.

This package also exports what :mod:`uffdlab.uapi.flags` and :mod:`uffdlab.uapi.ioctls` define, loaded when first used.
Before its hello the agent needs only :mod:`uffdlab.uapi.layout`, and an emulated CPU takes long to import :mod:`enum`.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from uffdlab.uapi.flags import *  # noqa: F403
    from uffdlab.uapi.ioctls import *  # noqa: F403


def __getattr__(name: str) -> Any:
    if name.startswith("_") and name != "__all__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib  # noqa: PLC0415 - the agent imports this package too, and does not need importlib

    modules = [importlib.import_module(f"{__name__}.{module}") for module in ("flags", "ioctls")]
    # What a module itself defines; not what it imports.
    found = {
        each: value
        for module in modules
        for each, value in vars(module).items()
        if not each.startswith("_")
        and (each in module.__annotations__ or getattr(value, "__module__", "") == module.__name__)
    }
    found["__all__"] = sorted(found)
    if name not in found:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals().update(found)
    return found[name]


def __dir__() -> list[str]:
    return sorted({*globals(), *__getattr__("__all__")})
