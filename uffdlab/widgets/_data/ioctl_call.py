"""An ioctl with its range and mode: what its bits do, what this kernel lacks, and the call as C and as Python.

Everything is derived from :data:`uffdlab.uapi.IOCTLS`.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING

from uffdlab import uapi
from uffdlab.uapi import IOCTLS

if TYPE_CHECKING:
    from uffdlab.target.capabilities import Capabilities

_RANGE_FIELDS = ("start", "len", "dst")


def short(ioctl: str) -> str:
    """Return the name without its prefix."""
    return ioctl.removeprefix("UFFDIO_")


def does(ioctl: str, flag: enum.IntFlag) -> str:
    """Return what a mode bit does, in one line."""
    return IOCTLS[ioctl].mode_bits[str(flag.name)].does


def since(ioctl: str, flag: enum.IntFlag | None = None) -> str:
    """Return the Linux version that brought the ioctl, or the mode bit."""
    row = IOCTLS[ioctl]
    return row.since if flag is None else row.mode_bits[str(flag.name)].since


def lacking(ioctl: str, flag: enum.IntFlag | None, capabilities: Capabilities) -> bool:
    """Return whether this kernel is known to lack the ioctl, or the mode bit."""
    if ioctl == "UFFDIO_CONTINUE" and flag is not None and flag.name == "WP":
        return capabilities.continue_wp is False
    row = IOCTLS[ioctl]
    needed = row.feature if flag is None else row.mode_bits[str(flag.name)].feature
    return bool(needed) and not capabilities.features & needed


def other_fields(ioctl: str) -> tuple[str, ...]:
    """Return the fields that are neither the range nor the mode and that the kernel does not write."""
    row = IOCTLS[ioctl]
    known = (*_RANGE_FIELDS, "mode", "ioctls", row.output)
    return tuple(field for field in row.fields if field not in known)


@dataclass(frozen=True)
class IoctlCall:
    """One ioctl call that has not been made yet.

    Attributes
    ----------
    ioctl : str
        A key of :data:`uffdlab.uapi.IOCTLS`.
    start, length : int
        Address and size of the range in bytes.
    first, count : int
        The same in pages of the region.
    mode : int
        The mode.
    others : dict
        The other fields, by name.
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
        """The fields of its argument."""
        fields = IOCTLS[self.ioctl].fields
        values = {"start": self.start, "dst": self.start, "len": self.length, "mode": self.mode, **self.others}
        return {name: value for name, value in values.items() if name in fields}

    @property
    def where(self) -> str:
        """The range as text (``pages 0–7``); empty if the ioctl has none."""
        if "len" not in IOCTLS[self.ioctl].fields:
            return ""
        return f"page {self.first}" if self.count == 1 else f"pages {self.first}–{self.first + self.count - 1}"

    def c(self) -> str:
        """Return the call as C."""
        row, name = IOCTLS[self.ioctl], self.ioctl
        struct = "uffdio_range" if row.fields == ("start", "len") else name.lower()
        lines = []
        if "start" in row.fields:
            inner = f".start = {self.start:#x}, .len = {self.length:#x}"
            lines.append(f"{inner}," if struct == "uffdio_range" else f".range = {{ {inner} }},")
        else:
            lines += [
                f".{field} = {value:#x},"
                for field, value in self.values.items()
                if field != "mode" and value is not None
            ]
        if "mode" in row.fields:
            flags = [f"{name}_MODE_{flag.name}" for flag in row.modes if self.mode & flag]
            rest = self.mode & ~sum(int(flag) for flag in row.modes)
            lines.append(f".mode = {' | '.join([*flags, *([hex(rest)] if rest else [])]) or '0'},")
        body = "\n".join(f"\t{line}" for line in lines)
        return f'struct {struct} arg = {{\n{body}\n}};\n\nif (ioctl(uffd, {name}, &arg) == -1)\n\terr(1, "{name}");\n'

    def python(self, data: bytes = b"") -> str:
        """Return the call as Python: a method of Userfaultfd if one makes the same call, else ``uffd.ioctl()``."""
        row = IOCTLS[self.ioctl]
        flags = [flag for flag in row.modes if self.mode & flag]
        pages = f"region[{self.first}]" if self.count == 1 else f"region[{self.first}:{self.first + self.count}]"
        plain = not self.mode & ~sum(int(flag) for flag in row.modes)
        if self.ioctl == "UFFDIO_REGISTER" and plain and flags:
            return f"uffd.register({pages}, {', '.join(repr(str(flag.name).lower()) for flag in flags)})"
        if row.method and plain:
            arguments = [pages]
            if self.ioctl == "UFFDIO_COPY":
                arguments.append(repr(data))
            arguments += [f"{str(flag.name).lower()}=True" for flag in flags]
            if row.protects and not self.mode & row.protects:
                arguments.append(f"{str(row.modes(row.protects).name).lower()}=False")
            return f"uffd.{row.method}({', '.join(arguments)})"
        shown = ", ".join(f'"{field}": {value:#x}' for field, value in self.values.items())
        return f'uffd.ioctl("{self.ioctl}", {{{shown}}})'


def flag_list(ioctl: str) -> list[enum.IntFlag]:
    """Return the mode bits of an ioctl."""
    modes: type[uapi.NoMode] = IOCTLS[ioctl].modes  # type: ignore[assignment]
    return list(modes)
