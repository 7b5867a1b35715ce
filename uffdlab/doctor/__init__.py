"""Check what a host has and lacks for labs, one line a thing, with what to do.

Nothing is installed, fetched or changed, and each check has a deadline.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from uffdlab.doctor import kernels_here, machines_here, python_here, room, sources_here
from uffdlab.doctor.line import Line, State
from uffdlab.errors import UffdlabError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["CHECKS", "Line", "State", "examine"]

CHECKS: dict[str, Callable[[str], Line]] = {
    "Python": python_here.python,
    "Jupyter": python_here.jupyter,
    "QEMU": machines_here.qemu,
    "KVM": machines_here.kvm,
    "busybox": machines_here.busybox,
    "memory": room.memory,
    "disk": room.disk,
    "/dev/shm": room.shared_memory,  # noqa: S108 - a name
    "cache folder": room.cache,
    "shared kernels": kernels_here.shared,
    "kernels": kernels_here.kernels,
    "Debian's archive": sources_here.archive,
    "build tools": sources_here.build_tools,
    "Vagrant": machines_here.vagrant,
}


def examine() -> Iterator[Line]:
    """Make each check, and yield its line."""
    for name, check in CHECKS.items():
        try:
            yield check(name)
        except (UffdlabError, OSError) as error:
            # For instance a setting with a wrong value, which is an error for labs, too.
            yield Line(name, State.MISSING, f"the check failed: {error}", "correct what the message names")
