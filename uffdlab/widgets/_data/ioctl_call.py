"""An ioctl with its range and mode: what its bits do, what this kernel lacks, and the call as C and as Python.

Everything is made from :data:`uffdlab.uapi.IOCTLS`; only the sentences on the mode bits are written here, after
ioctl_userfaultfd(2) and include/uapi/linux/userfaultfd.h.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING

from uffdlab import uapi
from uffdlab.uapi import IOCTLS, Feature

if TYPE_CHECKING:
    from uffdlab.target.capabilities import Capabilities

_DOES = {
    "DONTWAKE": "leaves asleep what waits for these pages; UFFDIO_WAKE wakes it later",
    "WP": "leaves the pages write-protected: the next write gives a message",
    "REGISTER.MISSING": "a touch of a page that is not there gives a message",
    "REGISTER.WP": "a write to a page that is write-protected gives a message",
    "REGISTER.MINOR": "a touch of a page that is in the page cache but not mapped gives a message",
    "REGISTER.RWP": "any touch of a page that is protected gives a message",
    "WRITEPROTECT.WP": "set: protects; clear: allows writes again and wakes",
    "RWPROTECT.RWP": "set: protects against any access; clear: allows them again and wakes",
    "MOVE.ALLOW_SRC_HOLES": "passes over pages that the source does not have",
}
# The feature that tells whether a kernel has an ioctl, or one of its modes.
_FEATURES = {
    "UFFDIO_MOVE": Feature.MOVE,
    "UFFDIO_POISON": Feature.POISON,
    "UFFDIO_RWPROTECT": Feature.RWP,
    "UFFDIO_SET_MODE": Feature.RWP_ASYNC,
    "UFFDIO_WRITEPROTECT": Feature.PAGEFAULT_FLAG_WP,
    "UFFDIO_CONTINUE": Feature.MINOR_HUGETLBFS | Feature.MINOR_SHMEM,
    "REGISTER.WP": Feature.PAGEFAULT_FLAG_WP,
    "REGISTER.MINOR": Feature.MINOR_HUGETLBFS | Feature.MINOR_SHMEM,
    "REGISTER.RWP": Feature.RWP,
    "COPY.WP": Feature.PAGEFAULT_FLAG_WP,
}
_METHODS = {
    "UFFDIO_CONTINUE": "continue_",
    "UFFDIO_COPY": "copy",
    "UFFDIO_ZEROPAGE": "zeropage",
    "UFFDIO_WRITEPROTECT": "writeprotect",
    "UFFDIO_POISON": "poison",
    "UFFDIO_UNREGISTER": "unregister",
    "UFFDIO_WAKE": "wake",
    "UFFDIO_RWPROTECT": "rwprotect",
}
_OF_THE_RANGE = ("start", "len", "dst")


def short(ioctl: str) -> str:
    """Give the name without its prefix."""
    return ioctl.removeprefix("UFFDIO_")


def does(ioctl: str, flag: enum.IntFlag) -> str:
    """Say in one line what a mode bit does."""
    name = str(flag.name)
    return _DOES.get(f"{short(ioctl)}.{name}") or _DOES[name]


def since(ioctl: str, flag: enum.IntFlag | None = None) -> str:
    """Give the Linux version that brought the ioctl, or the mode bit."""
    row = IOCTLS[ioctl]
    return row.since if flag is None else row.modes_since.get(str(flag.name), row.since)


def lacking(ioctl: str, flag: enum.IntFlag | None, capabilities: Capabilities) -> bool:
    """Tell whether this kernel is known to lack the ioctl, or the mode bit."""
    if ioctl == "UFFDIO_CONTINUE" and flag is not None and flag.name == "WP":
        return capabilities.continue_wp is False
    needed = _FEATURES.get(ioctl if flag is None else f"{short(ioctl)}.{flag.name}")
    return needed is not None and not capabilities.features & needed


def other_words(ioctl: str) -> tuple[str, ...]:
    """Name the words that are neither the range nor the mode nor written by the kernel."""
    row = IOCTLS[ioctl]
    mine = (*_OF_THE_RANGE, "mode", "ioctls", row.output)
    return tuple(field for field in row.fields if field not in mine)


@dataclass(frozen=True)
class Call:
    """One call, not sent yet.

    Attributes
    ----------
    ioctl : str
        A key of :data:`uffdlab.uapi.IOCTLS`.
    start, length : int
        Address and size of the range in bytes.
    first, count : int
        The same in pages of the region.
    mode : int
        The mode word.
    others : dict
        The other words, by name.
    """

    ioctl: str
    start: int
    length: int
    first: int
    count: int
    mode: int
    others: dict[str, int]

    @property
    def values(self) -> dict[str, int]:
        """The words of its argument."""
        fields = IOCTLS[self.ioctl].fields
        words = {"start": self.start, "dst": self.start, "len": self.length, "mode": self.mode, **self.others}
        return {name: value for name, value in words.items() if name in fields}

    @property
    def where(self) -> str:
        """The range in words; empty if the ioctl has none."""
        if "len" not in IOCTLS[self.ioctl].fields:
            return ""
        return f"page {self.first}" if self.count == 1 else f"pages {self.first}–{self.first + self.count - 1}"

    def c(self) -> str:
        """Write the call as C."""
        row, name = IOCTLS[self.ioctl], self.ioctl
        struct = "uffdio_range" if row.fields == ("start", "len") else name.lower()
        lines = []
        if "start" in row.fields:
            inner = f".start = {self.start:#x}, .len = {self.length:#x}"
            lines.append(f"{inner}," if struct == "uffdio_range" else f".range = {{ {inner} }},")
        else:
            lines += [
                f".{word} = {value:#x}," for word, value in self.values.items() if word != "mode" and value is not None
            ]
        if "mode" in row.fields:
            flags = [f"{name}_MODE_{flag.name}" for flag in row.modes if self.mode & flag]
            rest = self.mode & ~sum(int(flag) for flag in row.modes)
            lines.append(f".mode = {' | '.join([*flags, *([hex(rest)] if rest else [])]) or '0'},")
        body = "\n".join(f"\t{line}" for line in lines)
        return f'struct {struct} arg = {{\n{body}\n}};\n\nif (ioctl(uffd, {name}, &arg) == -1)\n\terr(1, "{name}");\n'

    def python(self, data: bytes = b"") -> str:
        """Write the call as Python, with the method for it where there is one that says the same."""
        row = IOCTLS[self.ioctl]
        flags = [flag for flag in row.modes if self.mode & flag]
        pages = f"region[{self.first}]" if self.count == 1 else f"region[{self.first}:{self.first + self.count}]"
        plain = not self.mode & ~sum(int(flag) for flag in row.modes)
        if self.ioctl == "UFFDIO_REGISTER" and plain and flags:
            return f"uffd.register({pages}, {', '.join(repr(str(flag.name).lower()) for flag in flags)})"
        if self.ioctl in _METHODS and plain:
            words = [pages]
            if self.ioctl == "UFFDIO_COPY":
                words.append(repr(data))
            words += [f"{str(flag.name).lower()}=True" for flag in flags]
            switch = "rwp" if self.ioctl == "UFFDIO_RWPROTECT" else "wp"
            if self.ioctl in ("UFFDIO_WRITEPROTECT", "UFFDIO_RWPROTECT") and f"{switch}=True" not in words:
                words.append(f"{switch}=False")
            return f"uffd.{_METHODS[self.ioctl]}({', '.join(words)})"
        shown = ", ".join(f'"{word}": {value:#x}' for word, value in self.values.items())
        return f'uffd.ioctl("{self.ioctl}", {{{shown}}})'


def flag_list(ioctl: str) -> list[enum.IntFlag]:
    """Give the mode bits of an ioctl."""
    modes: type[uapi.NoMode] = IOCTLS[ioctl].modes  # type: ignore[assignment]
    return list(modes)
