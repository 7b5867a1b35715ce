"""The userfaultfd ABI: features, flags and events, with the Linux version that introduced each feature.

Source: ``include/uapi/linux/userfaultfd.h`` (Linux 6.1, 6.12 and 7.3).  The versions are labels for readers; uffdlab
probes what a kernel can do and never compares versions.  Ioctls and their modes are in :mod:`uffdlab.uapi.ioctls`, the
layout of the structures in :mod:`uffdlab.uapi.layout`.
"""

from __future__ import annotations

import enum
from typing import Final

from uffdlab.uapi.layout import (
    EVENT_FORK,
    EVENT_PAGEFAULT,
    EVENT_REMAP,
    EVENT_REMOVE,
    EVENT_UNMAP,
    USER_MODE_ONLY,
)


class Feature(enum.IntFlag, boundary=enum.KEEP):
    """Features of UFFDIO_API.  Unknown bits are kept."""

    PAGEFAULT_FLAG_WP = 1 << 0
    EVENT_FORK = 1 << 1
    EVENT_REMAP = 1 << 2
    EVENT_REMOVE = 1 << 3
    MISSING_HUGETLBFS = 1 << 4
    MISSING_SHMEM = 1 << 5
    EVENT_UNMAP = 1 << 6
    SIGBUS = 1 << 7
    THREAD_ID = 1 << 8
    MINOR_HUGETLBFS = 1 << 9
    MINOR_SHMEM = 1 << 10
    EXACT_ADDRESS = 1 << 11
    WP_HUGETLBFS_SHMEM = 1 << 12
    WP_UNPOPULATED = 1 << 13
    POISON = 1 << 14
    WP_ASYNC = 1 << 15
    MOVE = 1 << 16
    RWP = 1 << 17
    RWP_ASYNC = 1 << 18


class FaultFlag(enum.IntFlag, boundary=enum.KEEP):
    """Flags of a page-fault message (UFFD_PAGEFAULT_FLAG_*)."""

    WRITE = 1 << 0
    WP = 1 << 1
    MINOR = 1 << 2
    RWP = 1 << 3


class Event(enum.IntEnum):
    """Kinds of messages that are read from a userfaultfd (UFFD_EVENT_*)."""

    PAGEFAULT = EVENT_PAGEFAULT
    FORK = EVENT_FORK
    REMAP = EVENT_REMAP
    REMOVE = EVENT_REMOVE
    UNMAP = EVENT_UNMAP


class OpenFlag(enum.IntFlag, boundary=enum.KEEP):
    """Flags of userfaultfd(2) and of USERFAULTFD_IOC_NEW, as on x86-64 and arm64."""

    USER_MODE_ONLY = USER_MODE_ONLY
    NONBLOCK = 0o4000
    CLOEXEC = 0o2000000


FEATURES_SINCE: Final = {
    Feature.PAGEFAULT_FLAG_WP: "5.7", Feature.EVENT_FORK: "4.11", Feature.EVENT_REMAP: "4.11",
    Feature.EVENT_REMOVE: "4.11", Feature.MISSING_HUGETLBFS: "4.11", Feature.MISSING_SHMEM: "4.11",
    Feature.EVENT_UNMAP: "4.11", Feature.SIGBUS: "4.14", Feature.THREAD_ID: "4.14", Feature.MINOR_HUGETLBFS: "5.13",
    Feature.MINOR_SHMEM: "5.14", Feature.EXACT_ADDRESS: "5.18", Feature.WP_HUGETLBFS_SHMEM: "5.19",
    Feature.WP_UNPOPULATED: "6.4", Feature.POISON: "6.6", Feature.WP_ASYNC: "6.7", Feature.MOVE: "6.8",
    Feature.RWP: "7.3", Feature.RWP_ASYNC: "7.3",
}  # fmt: skip


def flag_names(value: int, kind: type[enum.IntFlag]) -> str:
    """Return the names of the bits of `value`; bits without a name are printed as a number.

    >>> flag_names(0x103, ContinueMode)
    'DONTWAKE|WP|0x100'
    """
    names = [flag.name or "" for flag in kind if value & flag]
    rest = value & ~sum(int(flag) for flag in kind)
    if rest:
        names.append(hex(rest))
    return "|".join(names) or "0"
