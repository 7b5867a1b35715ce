"""What a grid marks beside the states of its pages: which are registered, and on which a touch waits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from uffdlab.observations.groups import runs
from uffdlab.uapi import RegisterMode

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from uffdlab.target.region import MemoryMapping

MOST_WAITING = 20  # touches whose state is asked for


def registered_modes(mapping: MemoryMapping) -> NDArray[np.uint32]:
    """Return the modes for which each page is registered with a userfaultfd of its lab, 0 for none; shape (n,)."""
    modes = np.zeros(mapping.pages, np.uint32)
    for uffd in mapping.lab.userfaultfds:
        own = np.zeros(mapping.pages, np.uint32)
        for start, length, mode in uffd.registered:
            low = (start - mapping.start) // mapping.page_size
            high = (start + length - mapping.start) // mapping.page_size
            own[max(0, low) : max(0, high)] = int(mode)
        modes |= own
    return modes


def registered_ranges(modes: NDArray[np.uint32], first: int = 0) -> list[list[Any]]:
    """Return each run of registered pages as [first page, count, ``"minor, wp"``]; pages are numbered from `first`."""
    return [
        [first + low, high - low, mode_text(int(modes[low]))] for low, high in runs(modes, modes) if int(modes[low])
    ]


def mode_text(mode: int) -> str:
    """Return the modes of a registration as text: ``minor, wp``."""
    known = [str(flag.name).lower() for flag in RegisterMode if mode & flag]
    rest = mode & ~sum(int(flag) for flag in RegisterMode)
    return ", ".join(sorted(known) + ([hex(rest)] if rest else []))


def waiting_pages(mapping: MemoryMapping) -> tuple[list[tuple[int, str]], bool]:
    """Return the pages of `mapping` on which touches wait, and whether others have started but do not wait yet.

    Each is the page and the kind of access.
    """
    found, more = [], False
    for touch in mapping.lab.touches[:MOST_WAITING]:
        page = mapping.page_of(touch.address)
        if page is None:
            continue
        state = touch.state
        more = more or state == "running"
        if state == "waiting":
            found.append((page, touch.kind))
    return found, more
