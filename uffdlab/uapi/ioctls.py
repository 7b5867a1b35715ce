"""The ioctls of a userfaultfd: a row for each, with everything that uffdlab knows about it, and its mode bits.

Sources: ``include/uapi/linux/userfaultfd.h`` (Linux 6.1, 6.12 and 7.3) and ioctl_userfaultfd(2).  The versions are
labels for readers; uffdlab probes what a kernel can do.
"""

from __future__ import annotations

import enum
import errno
from typing import Final, NamedTuple

from uffdlab.uapi.flags import Feature
from uffdlab.uapi.layout import LAYOUTS, Layout

_ALWAYS = Feature(0)
_MINOR = Feature.MINOR_HUGETLBFS | Feature.MINOR_SHMEM
_WP = Feature.PAGEFAULT_FLAG_WP


class RegisterMode(enum.IntFlag, boundary=enum.KEEP):
    """Modes of UFFDIO_REGISTER."""

    MISSING = 1 << 0
    WP = 1 << 1
    MINOR = 1 << 2
    RWP = 1 << 3


class CopyMode(enum.IntFlag, boundary=enum.KEEP):
    """Modes of UFFDIO_COPY."""

    DONTWAKE = 1 << 0
    WP = 1 << 1


class ZeropageMode(enum.IntFlag, boundary=enum.KEEP):
    """Modes of UFFDIO_ZEROPAGE."""

    DONTWAKE = 1 << 0


class MoveMode(enum.IntFlag, boundary=enum.KEEP):
    """Modes of UFFDIO_MOVE."""

    DONTWAKE = 1 << 0
    ALLOW_SRC_HOLES = 1 << 1


class WriteprotectMode(enum.IntFlag, boundary=enum.KEEP):
    """Modes of UFFDIO_WRITEPROTECT.  Unlike in the other ioctls, WP is bit 0 here."""

    WP = 1 << 0
    DONTWAKE = 1 << 1


class ContinueMode(enum.IntFlag, boundary=enum.KEEP):
    """Modes of UFFDIO_CONTINUE.  No feature bit shows whether a kernel knows WP; uffdlab probes it."""

    DONTWAKE = 1 << 0
    WP = 1 << 1


class PoisonMode(enum.IntFlag, boundary=enum.KEEP):
    """Modes of UFFDIO_POISON."""

    DONTWAKE = 1 << 0


class RwprotectMode(enum.IntFlag, boundary=enum.KEEP):
    """Modes of UFFDIO_RWPROTECT."""

    RWP = 1 << 0
    DONTWAKE = 1 << 1


class NoMode(enum.IntFlag, boundary=enum.KEEP):
    """The mode of the ioctls that have none."""


class ModeBit(NamedTuple):
    """One bit of an ioctl's mode.

    Attributes
    ----------
    flag : IntFlag
        The bit.
    does : str
        What it does, in one line.
    since : str
        The Linux version that introduced it; by default that of its ioctl.
    feature : Feature
        A kernel has the bit if it offers one of these features; 0 if no feature shows it.
    """

    flag: enum.IntFlag
    does: str
    since: str = ""
    feature: Feature = _ALWAYS


class Resolution(NamedTuple):
    """A way to resolve a page fault with an ioctl.

    Attributes
    ----------
    name : str
        Its name for readers: ``continue WP``.
    fault : str
        The kind of fault: one of :data:`FAULTS`.
    mode : int
        The mode.
    """

    name: str
    fault: str
    mode: int = 0


FAULTS: Final = ("minor", "missing", "wp", "any", "none")
"""Kinds of faults that a :class:`Resolution` resolves; ``none``: it only wakes the waiting threads, which try again."""


class Trial(NamedTuple):
    """The memory on which uffdlab tries an ioctl, to find out whether a kernel has it.

    Attributes
    ----------
    memory : str
        A key of :data:`uffdlab.uapi.memory.MEMORY`.
    register : RegisterMode
        The modes with which the memory is registered.
    page : str
        The state of the page: ``absent``, ``cached`` (in the page cache, not mapped) or ``present``.
    """

    memory: str
    register: RegisterMode
    page: str = "absent"


class Ioctl(Layout):
    """One ioctl of a userfaultfd: its :class:`~uffdlab.uapi.layout.Layout` and everything else uffdlab knows about it.

    Attributes
    ----------
    since : str
        The Linux version that introduced it; only for readers.
    modes : type
        The IntFlag of its mode; :class:`NoMode` if it has none.
    mode_bits : dict of str to ModeBit
        The bits of its mode, by name.
    feature : Feature
        A kernel has the ioctl if it offers one of these features; 0 if every kernel with userfaultfd has it.
    method : str
        The method of :class:`uffdlab.Userfaultfd` that takes a range, and the mode bits as keywords; empty if none.
    fills : bool
        Whether it maps pages where none are mapped.
    moves : bool
        Whether it takes the pages from a second range, ``src``, which must be aligned too.
    protects : int
        The mode bit that makes it protect pages; without this bit it removes the protection.  0 if it does neither.
    resolves : tuple of Resolution
        How it resolves page faults.
    trial : Trial or None
        How to probe a kernel for it; None if that needs more than memory (see :mod:`uffdlab.agent.probe`).
    reasons : dict of int to str
        The errnos that have another meaning for this ioctl, for error messages.
    random_call : str
        Its name in :mod:`uffdlab.fuzz`; empty if that does not call it.
    """

    def __init__(
        self,
        name: str,
        since: str,
        *mode_bits: ModeBit,
        modes: type[enum.IntFlag] = NoMode,
        feature: Feature = _ALWAYS,
        method: str = "",
        fills: bool = False,
        moves: bool = False,
        protects: int = 0,
        resolves: tuple[Resolution, ...] = (),
        trial: Trial | None = None,
        reasons: dict[int, str] | None = None,
        random_call: str = "",
    ) -> None:
        layout = LAYOUTS[name]
        super().__init__(name, layout.nr, layout.access, layout.fields, layout.output, batch=layout.batch)
        self.since, self.modes, self.feature = since, modes, feature
        self.mode_bits = {str(bit.flag.name): bit._replace(since=bit.since or since) for bit in mode_bits}
        self.method, self.fills, self.moves, self.protects = method, fills, moves, int(protects)
        self.resolves, self.trial, self.reasons, self.random_call = resolves, trial, reasons or {}, random_call


def _table(*rows: Ioctl) -> dict[str, Ioctl]:
    return {row.name: row for row in rows}


def _dontwake(flag: enum.IntFlag) -> ModeBit:
    return ModeBit(flag, "does not wake the threads that wait for these pages; UFFDIO_WAKE wakes them later")


def _wp(flag: enum.IntFlag, since: str, feature: Feature = _ALWAYS) -> ModeBit:
    return ModeBit(flag, "leaves the pages write-protected: the next write causes a message", since, feature)


_MAPPED_OR_CACHED = (
    "a page of the range is mapped already, or is in the page cache. UFFDIO_CONTINUE maps a page of the page "
    "cache, UFFDIO_WRITEPROTECT changes a mapped page"
)

IOCTLS: Final = _table(
    Ioctl(
        "UFFDIO_API",
        "4.3",
        reasons={
            errno.EINVAL: "it works once for each userfaultfd, with api 0xaa and features that the kernel has; "
            "lab.userfaultfd() calls it"
        },
    ),
    Ioctl(
        "UFFDIO_REGISTER",
        "4.3",
        ModeBit(RegisterMode.MISSING, "an access to a missing page causes a message"),
        ModeBit(RegisterMode.WP, "a write to a write-protected page causes a message", "5.7", _WP),
        ModeBit(
            RegisterMode.MINOR,
            "an access to a page that is in the page cache but not mapped causes a message",
            "5.13",
            _MINOR,
        ),
        ModeBit(RegisterMode.RWP, "any access to a protected page causes a message", "7.3", Feature.RWP),
        modes=RegisterMode,
        random_call="register",
    ),
    Ioctl("UFFDIO_UNREGISTER", "4.3", method="unregister"),
    Ioctl("UFFDIO_WAKE", "4.3", method="wake", resolves=(Resolution("wake", "none"),), random_call="wake"),
    Ioctl(
        "UFFDIO_COPY",
        "4.3",
        _dontwake(CopyMode.DONTWAKE),
        _wp(CopyMode.WP, "5.7", _WP),
        modes=CopyMode,
        method="copy",
        fills=True,
        resolves=(Resolution("copy", "missing"),),
        trial=Trial("anon", RegisterMode.MISSING | RegisterMode.WP),
        reasons={
            errno.EEXIST: _MAPPED_OR_CACHED,
            errno.EFAULT: "the source cannot be read: all of it must be mapped in the target",
        },
        random_call="copy",
    ),
    Ioctl(
        "UFFDIO_ZEROPAGE",
        "4.3",
        _dontwake(ZeropageMode.DONTWAKE),
        modes=ZeropageMode,
        method="zeropage",
        fills=True,
        resolves=(Resolution("zeropage", "missing"),),
        trial=Trial("anon", RegisterMode.MISSING),
        reasons={errno.EEXIST: _MAPPED_OR_CACHED},
        random_call="zeropage",
    ),
    Ioctl(
        "UFFDIO_MOVE",
        "6.8",
        _dontwake(MoveMode.DONTWAKE),
        ModeBit(MoveMode.ALLOW_SRC_HOLES, "skips pages that the source does not have"),
        modes=MoveMode,
        feature=Feature.MOVE,
        fills=True,
        moves=True,
        trial=Trial("anon", RegisterMode.MISSING),
        reasons={
            errno.EINVAL: "pages can only move between private anonymous mappings with equal flags; shmem and hugetlb "
            "cannot be moved",
            errno.EBUSY: "a page of the source is pinned, or is shared with another process since a fork",
        },
        random_call="move",
    ),
    Ioctl(
        "UFFDIO_WRITEPROTECT",
        "5.7",
        ModeBit(WriteprotectMode.WP, "set: protects; clear: allows writes again and wakes"),
        _dontwake(WriteprotectMode.DONTWAKE),
        modes=WriteprotectMode,
        feature=_WP,
        method="writeprotect",
        protects=WriteprotectMode.WP,
        resolves=(Resolution("unprotect", "wp"),),
        trial=Trial("anon", RegisterMode.WP, "present"),
        reasons={errno.ENOENT: "the range is not registered for WP; uffd.register(region, …, 'wp')"},
        random_call="protect",
    ),
    Ioctl(
        "UFFDIO_CONTINUE",
        "5.13",
        _dontwake(ContinueMode.DONTWAKE),
        _wp(ContinueMode.WP, "6.4"),
        modes=ContinueMode,
        feature=_MINOR,
        method="continue_",
        fills=True,
        resolves=(Resolution("continue", "minor"), Resolution("continue WP", "minor", int(ContinueMode.WP))),
        trial=Trial("shmem", RegisterMode.MINOR | RegisterMode.WP, "cached"),
        reasons={
            errno.EFAULT: "there is no page in the page cache; fill it through the alias first, or use UFFDIO_COPY "
            "(the kernel may reclaim a page that was only read, never written)"
        },
        random_call="continue",
    ),
    Ioctl(
        "UFFDIO_POISON",
        "6.6",
        _dontwake(PoisonMode.DONTWAKE),
        modes=PoisonMode,
        feature=Feature.POISON,
        method="poison",
        fills=True,
        resolves=(Resolution("poison", "any"),),
        trial=Trial("anon", RegisterMode.MISSING),
        random_call="poison",
    ),
    Ioctl(
        "UFFDIO_RWPROTECT",
        "7.3",
        ModeBit(RwprotectMode.RWP, "set: protects against any access; clear: allows them again and wakes"),
        _dontwake(RwprotectMode.DONTWAKE),
        modes=RwprotectMode,
        feature=Feature.RWP,
        method="rwprotect",
        protects=RwprotectMode.RWP,
        trial=Trial("anon", RegisterMode.RWP, "present"),
        reasons={errno.ENOENT: "the range is not registered for RWP; uffd.register(region, …, 'rwp')"},
        random_call="rwprotect",
    ),
    Ioctl(
        "UFFDIO_SET_MODE",
        "7.3",
        feature=Feature.RWP_ASYNC,
        reasons={
            errno.EINVAL: "only Feature.RWP_ASYNC can be changed, on a userfaultfd that has Feature.RWP",
        },
    ),
)
