"""An ioctl with its range and mode: what its bits do, what this kernel lacks, and the call as C and as Python.

Everything is made from :data:`uffdlab.uapi.IOCTLS`.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING

from uffdlab import uapi
from uffdlab.uapi import IOCTLS

if TYPE_CHECKING:
    from uffdlab.target.capabilities import Capabilities

_OF_THE_RANGE = ("start", "len", "dst")


def short(ioctl: str) -> str:
    """Give the name without its prefix."""
    return ioctl.removeprefix("UFFDIO_")


def does(ioctl: str, flag: enum.IntFlag) -> str:
    """Return one line on what a mode bit does."""
    return IOCTLS[ioctl].mode_bits[str(flag.name)].does


def since(ioctl: str, flag: enum.IntFlag | None = None) -> str:
    """Return the Linux version that brought the ioctl, or the mode bit."""
    row = IOCTLS[ioctl]
    return row.since if flag is None else row.mode_bits[str(flag.name)].since


def lacking(ioctl: str, flag: enum.IntFlag | None, capabilities: Capabilities) -> bool:
    """Tell whether this kernel is known to lack the ioctl, or the mode bit."""
    if ioctl == "UFFDIO_CONTINUE" and flag is not None and flag.name == "WP":
        return capabilities.continue_wp is False
    row = IOCTLS[ioctl]
    needed = row.feature if flag is None else row.mode_bits[str(flag.name)].feature
    return bool(needed) and not capabilities.features & needed


def other_words(ioctl: str) -> tuple[str, ...]:
    """Name the words that are neither the range nor the mode nor written by the kernel."""
    row = IOCTLS[ioctl]
    mine = (*_OF_THE_RANGE, "mode", "ioctls", row.output)
    return tuple(field for field in row.fields if field not in mine)


@dataclass(frozen=True)
class IoctlCall:
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
        if row.method and plain:
            words = [pages]
            if self.ioctl == "UFFDIO_COPY":
                words.append(repr(data))
            words += [f"{str(flag.name).lower()}=True" for flag in flags]
            if row.protects and not self.mode & row.protects:
                words.append(f"{str(row.modes(row.protects).name).lower()}=False")
            return f"uffd.{row.method}({', '.join(words)})"
        shown = ", ".join(f'"{word}": {value:#x}' for word, value in self.values.items())
        return f'uffd.ioctl("{self.ioctl}", {{{shown}}})'


def flag_list(ioctl: str) -> list[enum.IntFlag]:
    """Give the mode bits of an ioctl."""
    modes: type[uapi.NoMode] = IOCTLS[ioctl].modes  # type: ignore[assignment]
    return list(modes)
