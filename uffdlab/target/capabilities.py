"""Capabilities: what one kernel can do with a userfaultfd, found by trying, as data and as a table."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Self

from uffdlab import uapi
from uffdlab.errors import errno_name
from uffdlab.observations import html_table as html_tables
from uffdlab.uapi import Feature, RegisterMode
from uffdlab.uapi.memory import MEMORY, Memory
from uffdlab.uapi.protocol.target import KernelProbe

_MEMORY_SINCE = {
    "anon": {"MISSING": "4.3", "WP": "5.7", "RWP": "7.3"},
    "shmem": {"MISSING": "4.11", "WP": "5.19", "MINOR": "5.14", "RWP": "7.3"},
    "hugetlb": {"MISSING": "4.11", "WP": "5.19", "MINOR": "5.13", "RWP": "7.3"},
}


@dataclass(frozen=True)
class Capability:
    """One capability: something that a kernel can or cannot do.

    Attributes
    ----------
    group : str
        ``way``, ``feature``, ``ioctl``, ``mode`` or ``memory``.
    name : str
        Its name in the kernel.
    since : str
        The Linux version that introduced it; "" if that is not recorded here.
    errno : int or None
        The errno when it was tried, 0 for success; None for a feature, which a kernel offers or not.
    there : bool
        Whether this kernel can do it.
    """

    group: str
    name: str
    since: str
    errno: int | None
    there: bool

    @property
    def text(self) -> str:
        """``yes``, ``no`` or the errno's name."""
        if self.there:
            return "yes"
        return "no" if not self.errno else errno_name(self.errno)


@dataclass(frozen=True, repr=False)
class Capabilities:
    """What one kernel can do with a userfaultfd.  An errno of 0 means that it worked.

    Attributes
    ----------
    kernel : str
        Its name.
    features : Feature
        The features that UFFDIO_API offers.
    ioctls : int
        A bit for each ioctl number that UFFDIO_API and UFFDIO_REGISTER report.
    continue_wp : bool or None
        Whether UFFDIO_CONTINUE has MODE_WP, which no feature reports; None if it cannot be tried.
    ways : mapping of str to int
        For each way to open a userfaultfd its errno.
    modes : mapping of str to mapping of int to int
        For each ioctl and mode its errno.
    memory : mapping of str to mapping of RegisterMode to int
        For each kind of memory and mode of UFFDIO_REGISTER its errno; if the memory cannot be mapped, that errno.
    """

    kernel: str
    features: Feature
    ioctls: int
    continue_wp: bool | None
    ways: Mapping[str, int]
    modes: Mapping[str, Mapping[int, int]]
    memory: Mapping[str, Mapping[RegisterMode, int]]

    @classmethod
    def from_answer(cls, kernel: str, answer: KernelProbe) -> Self:
        """Return the capabilities in the target's answer."""
        return cls(
            kernel,
            Feature(answer.features),
            answer.ioctls,
            answer.continue_wp,
            answer.ways,
            answer.modes,
            {
                name: {mode: found.errno or found.register[int(mode)].errno for mode in RegisterMode}
                for name, found in answer.memory.items()
            },
        )

    @cached_property
    def rows(self) -> tuple[Capability, ...]:
        """All capabilities, one row each."""
        return tuple(_rows(self))

    def missing(self, *names: str) -> str:
        """Return the first of `names` that this kernel lacks, or "": ``missing("MOVE", "shmem: MINOR")``.

        Raises
        ------
        KeyError
            A name is not in :attr:`rows`.
        """
        by_name = {row.name: row for row in self.rows}
        return next((name for name in names if not by_name[name].there), "")

    def as_data(self) -> dict[str, object]:
        """Return it in the types of JSON: ``kernel``, ``ok`` (true) and ``capabilities``, one object for each row."""
        rows = [
            {"group": row.group, "name": row.name, "since": row.since or None, "available": row.there,
             "errno": row.errno}
            for row in self.rows
        ]  # fmt: skip
        return {"kernel": self.kernel, "ok": True, "capabilities": rows}

    def __str__(self) -> str:
        return text_table([self])

    def __repr__(self) -> str:
        there = sum(row.there for row in self.rows)
        return f"<Capabilities of {self.kernel}: {there} of {len(self.rows)}>"

    def _repr_html_(self) -> str:
        return html_table([self])


def _rows(found: Capabilities) -> Iterator[Capability]:
    for way, error in found.ways.items():
        since = "6.1" if way.startswith("/dev") else "5.11" if way.endswith("USER_MODE_ONLY") else "4.3"
        yield Capability("way", way, since, error, error == 0)
    for feature in Feature:
        yield Capability(
            "feature", str(feature.name), uapi.FEATURES_SINCE[feature], None, bool(found.features & feature)
        )
    for bit in _bits(found.features, known=(feature.bit_length() - 1 for feature in Feature)):
        yield Capability("feature", f"bit {bit}", "", None, True)
    for name, tried in found.modes.items():
        ioctl = uapi.IOCTLS[name]
        for mode, error in tried.items():
            flags = uapi.flag_names(mode, ioctl.modes)
            since = ioctl.mode_bits[flags].since if flags in ioctl.mode_bits else ioctl.since
            group, label = ("mode", f"{name} {flags}") if mode else ("ioctl", name)
            yield Capability(group, label, since, error, error == 0)
    for number in _bits(found.ioctls, known=(ioctl.nr for ioctl in uapi.IOCTLS.values())):
        yield Capability("ioctl", f"number {number:#04x}", "", None, True)
    for memory, registered in found.memory.items():
        for mode, error in registered.items():
            since = _MEMORY_SINCE[_family(MEMORY[memory])].get(str(mode.name), "")
            yield Capability("memory", f"{memory}: {mode.name}", since, error, error == 0)


def _bits(flags: int, known: Iterable[int]) -> list[int]:
    # The bits that are set and have no name here.
    return sorted({bit for bit in range(64) if flags >> bit & 1} - set(known))


def _family(memory: Memory) -> str:
    if memory.hugetlb:
        return "hugetlb"
    return "anon" if memory.backing == "anon" and not memory.shared else "shmem"


def table(several: Sequence[Capabilities]) -> list[list[str]]:
    """Return the rows of a table of several kernels side by side: what, name, since, and the result on each kernel."""
    names = list(dict.fromkeys((row.group, row.name, row.since) for each in several for row in each.rows))
    texts = [{(row.group, row.name): row.text for row in each.rows} for each in several]
    return [[*name, *(known.get(name[:2], "no") for known in texts)] for name in names]


def _table_heads(several: Sequence[Capabilities]) -> list[str]:
    return ["", "name", "since", *(each.kernel for each in several)]


def text_table(several: Sequence[Capabilities]) -> str:
    """Return the table as plain text."""
    rows = [_table_heads(several), *table(several)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)


def markdown_table(several: Sequence[Capabilities]) -> str:
    """Return the table in Markdown."""
    heads = _table_heads(several)
    lines = [heads, ["---"] * len(heads), *table(several)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def html_table(several: Sequence[Capabilities]) -> str:
    """Return the table in HTML."""
    title = f"What {' and '.join(each.kernel for each in several)} can do"
    return html_tables.html_table(title, _table_heads(several), table(several))


FORMS = {"text": text_table, "markdown": markdown_table, "html": html_table}
