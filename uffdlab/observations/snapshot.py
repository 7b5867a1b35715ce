"""Snapshot: the states of a region's pages at one moment, by one witness; Difference: what changed between two."""

from __future__ import annotations

import json
import operator
from dataclasses import InitVar, dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from uffdlab import pte
from uffdlab.arguments import checked
from uffdlab.errors import UsageError, WrongIndex
from uffdlab.observations.bit import Bit
from uffdlab.observations.changes import Change, group_changes
from uffdlab.observations.groups import BitCount, PageGroup, runs
from uffdlab.observations.html_table import html_table
from uffdlab.observations.page_text import page_range_text, page_ranges
from uffdlab.observations.table import as_csv, as_pandas
from uffdlab.pte import ALL, State

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator

    import pandas as pd
    from numpy.typing import NDArray

__all__ = ["BitCount", "Change", "Difference", "PageGroup", "Snapshot", "page_ranges"]


@checked("snapshot")
@dataclass(frozen=True, eq=False, repr=False)
class Snapshot:
    """The states of some neighbouring pages at one moment, as one witness reports them.

    It has the raw entries.  The states are decoded from them when they are first used.

    Attributes
    ----------
    region : str
        The name of the region.
    start : int
        The address of the first page of the snapshot.
    page_size : int
        The size of a page in bytes.
    witness : str
        Name of the witness, one of :data:`uffdlab.witnesses.selection.NAMES`.
    entries : ndarray of uint64, shape (n,)
        The raw entry of each page, as the witness read it.
    levels : ndarray of uint8, shape (n,)
        The level of each entry: 1 = PTE, 2 = PMD, 3 = PUD, 4, 5; 0 = not known (pagemap).
    time_ns : int
        The time of the snapshot, by the target's CLOCK_MONOTONIC; 0 if it is not known.
    kernel : str
        The name of the kernel.
    first : int
        The number of the first page of the snapshot in the region.
    form : str
        The format of the entries, a key of :data:`uffdlab.pte.FORMATS`.
    vma_soft_dirty, hugetlb, tracks_soft_dirty : bool
        See :func:`uffdlab.pte.decode_pagemap`.
    answered : int
        See :func:`uffdlab.pte.decode_scan`.
    decoded : (ndarray of uint32, ndarray of uint32), optional
        The states and the known bits, from a witness that has already decoded the entries.

    Raises
    ------
    UsageError
        The arguments do not match each other.
    """

    region: str
    start: int
    page_size: int
    witness: str
    entries: NDArray[np.uint64]
    levels: NDArray[np.uint8]
    time_ns: int = 0
    kernel: str = ""
    first: int = 0
    form: str = "x86-64"
    vma_soft_dirty: bool = False
    hugetlb: bool = False
    tracks_soft_dirty: bool = True
    answered: int = 0
    decoded: InitVar[tuple[NDArray[np.uint32], NDArray[np.uint32]] | None] = None

    def __post_init__(self, decoded: tuple[NDArray[np.uint32], NDArray[np.uint32]] | None) -> None:
        entries = _frozen(self.entries, np.uint64, "entries")
        levels = _frozen(self.levels, np.uint8, "levels")
        if entries.ndim != 1 or entries.shape != levels.shape:
            raise UsageError(
                f"a snapshot needs one entry and one level a page; got shapes {entries.shape} and {levels.shape}"
            )
        if self.page_size < 4096 or self.page_size & (self.page_size - 1):
            raise UsageError(f"page_size={self.page_size} is not a power of two of 4096 or more")
        if self.start < 0 or self.start % self.page_size:
            raise UsageError(f"start={self.start:#x} is not a multiple of the page size, {self.page_size} bytes")
        if self.first < 0:
            raise UsageError(f"first={self.first} is not a page number")
        if self.form not in pte.FORMATS:
            raise UsageError(f"form={self.form!r} is not one of {', '.join(pte.FORMATS)}")
        object.__setattr__(self, "entries", entries)
        object.__setattr__(self, "levels", levels)
        if decoded is not None:
            self.__dict__["_decoded"] = tuple(_frozen(each, np.uint32, "states") for each in decoded)

    @cached_property
    def _decoded(self) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
        states, known = pte.FORMATS[self.form].decode(self.entries, self.levels, self)
        states.flags.writeable = False
        known.flags.writeable = False
        return states, known

    @property
    def states(self) -> NDArray[np.uint32]:
        """Bits of :class:`State` that are set and known; uint32, shape (n,)."""
        return self._decoded[0]

    @property
    def known(self) -> NDArray[np.uint32]:
        """Bits of :class:`State` that this witness knows; uint32, shape (n,)."""
        return self._decoded[1]

    # --- pages

    def __len__(self) -> int:
        return self.entries.size

    def __iter__(self) -> Iterator[Snapshot]:
        return (self[index] for index in range(len(self)))

    def __getitem__(self, which: int | slice) -> Snapshot:
        """Return some of the pages: ``snapshot[3]``, ``snapshot[:32]``.  They keep their numbers in the region."""
        if isinstance(which, slice):
            start, stop, step = which.indices(len(self))
            if step != 1:
                raise UsageError(f"a part of a snapshot must be neighbouring pages; a step of {step} is not possible")
            stop = max(start, stop)
        else:
            if not hasattr(which, "__index__"):
                raise UsageError(f"snapshot[{which!r}] is not a page number; an integer or a slice is: snapshot[3]")
            index = operator.index(which)
            start = index + len(self) if index < 0 else index
            stop = start + 1
            if not 0 <= start < len(self):
                raise WrongIndex(f"this snapshot has no page {index}; it has pages 0 to {len(self) - 1}")
        decoded = (self.states[start:stop], self.known[start:stop]) if "_decoded" in self.__dict__ else None
        return replace(
            self,
            start=self.start + start * self.page_size,
            first=self.first + start,
            entries=self.entries[start:stop],
            levels=self.levels[start:stop],
            decoded=decoded,
        )

    @property
    def pages(self) -> range:
        """The page numbers in the region."""
        return range(self.first, self.first + len(self))

    @property
    def addresses(self) -> NDArray[np.uint64]:
        """The address of each page; uint64, shape (n,)."""
        return np.uint64(self.start) + np.arange(len(self), dtype=np.uint64) * np.uint64(self.page_size)

    # --- states

    present = Bit(State.PRESENT)
    writable = Bit(State.WRITABLE)
    uffd_wp = Bit(State.UFFD_WP)
    dirty = Bit(State.DIRTY)
    accessed = Bit(State.ACCESSED)
    soft_dirty = Bit(State.SOFT_DIRTY)
    exclusive = Bit(State.EXCLUSIVE)
    huge = Bit(State.HUGE)
    swapped = Bit(State.SWAPPED)
    marker = Bit(State.MARKER)
    file = Bit(State.FILE)
    poison = Bit(State.POISON)
    guard = Bit(State.GUARD)
    protnone = Bit(State.PROTNONE)
    special = Bit(State.SPECIAL)

    def has(self, state: State) -> NDArray[np.bool_]:
        """Return for each page whether all bits of `state` are known to be set; bool, shape (n,)."""
        return _has_all_bits(self.states, state)

    def lacks(self, state: State) -> NDArray[np.bool_]:
        """Return for each page whether all bits of `state` are known to be clear; bool, shape (n,)."""
        return _has_all_bits(self.known & ~self.states, state)

    def knows(self, state: State) -> NDArray[np.bool_]:
        """Return for each page whether all bits of `state` are known; bool, shape (n,)."""
        return _has_all_bits(self.known, state)

    def frames(self) -> NDArray[np.int64]:
        """Return the page frame number (4 KiB units) of each page; -1 if none is mapped or it is not known."""
        frames = pte.FORMATS[self.form].frames(self.entries, self.levels)
        levels_above_pte = np.maximum(self.levels, 1).astype(np.int64) - 1
        offset_mask = np.where(self.has(State.HUGE), (np.int64(1) << 9 * levels_above_pte) - 1, 0)
        offset = (self.addresses >> np.uint64(12)).astype(np.int64) & offset_mask
        return np.where(frames < 0, frames, frames + offset)

    def counts(self) -> dict[State, BitCount]:
        """Return for each bit the number of pages on which it is set, clear and not known."""
        known = {state: int(self.knows(state).sum()) for state in State}
        yes = {state: int(self.has(state).sum()) for state in State}
        return {state: BitCount(yes[state], known[state] - yes[state], len(self) - known[state]) for state in State}

    def groups(self, of: State = ALL) -> list[PageGroup]:
        """Merge neighbouring pages whose bits of `of` are equal, for instance those of :data:`uffdlab.pte.MAPPING`."""
        states, known = self.states & np.uint32(of), self.known & np.uint32(of)
        return [
            PageGroup(self.first + low, self.first + high - 1, State(int(states[low])), State(int(known[low])))
            for low, high in runs(states, known)
        ]

    @property
    def unknown(self) -> State:
        """The bits that this witness does not know for any page."""
        return ALL & ~State(int(np.bitwise_or.reduce(self.known))) if len(self) else ALL

    def __sub__(self, before: Snapshot) -> Difference:
        """Return what changed: ``after - before``."""
        if not isinstance(before, Snapshot):
            return NotImplemented
        return Difference(before, self)

    # --- display

    def __str__(self) -> str:
        lines = [f"{self._title()}"]
        lines += [f"  {group}" for group in self.groups()]
        if self.unknown:
            lines.append(f"  ({self._unknown_text()})")
        return "\n".join(lines)

    def __repr__(self) -> str:
        return f"<Snapshot of {self._title()}>"

    def _title(self) -> str:
        pages = page_range_text(self.first, self.first + len(self) - 1) if len(self) else "no pages"
        kernel = f"{self.kernel}, " if self.kernel else ""
        return f"{self.region}, {pages} ({kernel}seen by {self.witness})"

    def _unknown_text(self) -> str:
        return f"not known to {self.witness}: " + ", ".join(pte.state_name(state) for state in self.unknown)

    def _repr_html_(self) -> str:
        rows = [
            (str(group.size), f"{group.first}–{group.last}" if group.size > 1 else str(group.first), group.text)
            for group in self.groups()
        ]
        note = self._unknown_text() if self.unknown else ""
        return html_table(self._title(), ("pages", "numbers", "state"), rows, note)

    # --- data

    def to_dict(self) -> dict[str, Any]:
        """Return all as plain data for JSON; entries are hexadecimal strings.  :meth:`from_dict` reads it back."""
        return {
            "region": self.region,
            "start": self.start,
            "page_size": self.page_size,
            "first": self.first,
            "witness": self.witness,
            "kernel": self.kernel,
            "time_ns": self.time_ns,
            "form": self.form,
            "vma_soft_dirty": self.vma_soft_dirty,
            "hugetlb": self.hugetlb,
            "tracks_soft_dirty": self.tracks_soft_dirty,
            "answered": self.answered,
            "bits": {pte.state_name(state): int(state) for state in State},
            "entries": [f"{entry:#018x}" for entry in self.entries.tolist()],
            "levels": self.levels.tolist(),
            "states": self.states.tolist(),
            "known": self.known.tolist(),
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Snapshot:
        """Return the snapshot for a result of :meth:`to_dict`.  Its states are decoded again from the raw entries."""
        try:
            entries = np.array([int(entry, 16) for entry in data["entries"]], dtype=np.uint64)
            levels = np.array(data["levels"], dtype=np.uint8)
            rest = {each.name: data[each.name] for each in fields(cls) if each.name not in ("entries", "levels")}
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise UsageError(f"this is not the data of a snapshot: {error!r}") from error
        return cls(entries=entries, levels=levels, **rest)

    def to_json(self, path: str | os.PathLike[str] | None = None) -> str:
        """Return :meth:`to_dict` as JSON text, and write it to `path` if given."""
        return _return_and_write(json.dumps(self.to_dict(), ensure_ascii=False), path)

    def columns(self) -> dict[str, NDArray[Any]]:
        """Return all data as columns, arrays of shape (n,).

        Returns
        -------
        dict of str to ndarray
            ``page`` (int64, its number in the region), ``address`` and ``entry`` (uint64), ``level`` (uint8, 0 if it
            is not known), ``frame`` (int64, -1 if none is mapped or it is not known); then a column for each bit of
            :class:`State` by its name (int8: 1 set, 0 clear, -1 not known).
        """
        return {
            "page": np.arange(self.first, self.first + len(self), dtype=np.int64),
            "address": self.addresses,
            "entry": self.entries,
            "level": self.levels,
            "frame": self.frames(),
            **{
                pte.state_name(bit): np.where(self.knows(bit), self.has(bit).astype(np.int8), np.int8(-1))
                for bit in State
            },
        }

    def to_csv(self, path: str | os.PathLike[str] | None = None) -> str:
        """Return a table as CSV text with a line for each page, and write it to `path` if given.

        Columns: page, address, entry, level, frame, then one for each bit: 1, 0, or ? if it is not known.
        """
        return _return_and_write(as_csv(self.columns()), path)

    def to_pandas(self) -> pd.DataFrame:
        """Return a pandas DataFrame with a row for each page: the columns of :meth:`to_csv`, with the page as index.

        A bit is True, False, or pandas.NA if it is not known.

        Raises
        ------
        UsageError
            pandas is not installed.
        """
        return as_pandas(self.columns())

    def filter(self, state: State) -> list[Snapshot]:
        """Return the runs of neighbouring pages on which all bits of `state` are set and known."""
        return [self[low:high] for low, high in runs(self.has(state).astype(np.uint32)) if self.has(state)[low]]


@dataclass(frozen=True, eq=False, repr=False)
class Difference:
    """What changed between two snapshots of the same pages: ``after - before``.

    Only the bits that both know are compared.

    Attributes
    ----------
    before, after : Snapshot
    across_labs : bool
        Whether the two are of different labs.  Then pages with the same number are compared.  The names and addresses
        of their regions may differ, and page frames are not compared: another machine's frame means nothing.

    Raises
    ------
    UsageError
        The two snapshots are of different pages.
    """

    before: Snapshot
    after: Snapshot
    across_labs: bool = False

    def __post_init__(self) -> None:
        pair = self.before, self.after
        if self.across_labs:
            if len({(each.page_size, each.first, len(each)) for each in pair}) > 1:
                sizes = " and ".join(f"{each!r} has {len(each)} pages of {each.page_size} bytes" for each in pair)
                raise UsageError(
                    f"these two snapshots are of different pages: {sizes}; take both of as many pages of one size"
                )
            return
        one, other = ((s.region, s.start, s.page_size, s.first, len(s)) for s in pair)
        if one != other:
            raise UsageError(
                f"these two snapshots are of different pages: {self.before!r} starts at {self.before.start:#x}, "
                f"{self.after!r} at {self.after.start:#x}; take both of the same region or range"
            )

    @cached_property
    def bits(self) -> NDArray[np.uint32]:
        """The bits that changed, of those that both know; uint32, shape (n,)."""
        both = self.before.known & self.after.known
        return (self.before.states ^ self.after.states) & both

    @cached_property
    def moved(self) -> NDArray[np.bool_]:
        """Whether a page is mapped before and after, but with another page frame; bool, shape (n,).

        False for all pages across labs.
        """
        if self.across_labs:
            return np.zeros(len(self.before), np.bool_)
        before, after = self.before.frames(), self.after.frames()
        moved: NDArray[np.bool_] = (before >= 0) & (after >= 0) & (before != after)
        return moved

    @cached_property
    def changed(self) -> NDArray[np.bool_]:
        """Whether anything changed; bool, shape (n,)."""
        changed: NDArray[np.bool_] = (self.bits != 0) | self.moved
        return changed

    def __bool__(self) -> bool:
        return bool(self.changed.any())

    def __len__(self) -> int:
        """Return the number of pages that changed."""
        return int(self.changed.sum())

    def changes(self) -> list[Change]:
        """Group the changed pages by their change, in the order of the first page."""
        return group_changes(
            self.changed,
            (self.before.states, self.before.known),
            (self.after.states, self.after.known),
            self.moved,
            first=self.before.first,
        )

    def __str__(self) -> str:
        lines = [str(change) for change in self.changes()]
        same = len(self.before) - len(self)
        if not lines:
            return f"no change on {same} pages"
        return "\n".join([*lines, *([f"{same} pages unchanged"] if same else [])])

    def __repr__(self) -> str:
        return f"<Difference of {len(self)} among {len(self.before)} pages of {self.before.region}>"

    def _repr_html_(self) -> str:
        rows = [(str(len(c.pages)), page_ranges(c.pages), c.before, *_after(c)) for c in self.changes()]
        same = len(self.before) - len(self)
        title = f"{self.before.region}: what changed"
        return html_table(
            title, ("pages", "numbers", "before", "after", "what changed"), rows, f"{same} pages unchanged"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the changes and both snapshots as plain data for JSON."""
        return {
            "changes": [
                {"pages": list(c.pages), "before": c.before, "after": c.after, "moved": c.moved} for c in self.changes()
            ],
            "before": self.before.to_dict(),
            "after": self.after.to_dict(),
        }


def _after(change: Change) -> tuple[str, str]:
    moved = ["another page frame"] if change.moved else []
    return change.after, ", ".join([*([change.bits] if change.bits else []), *moved])


def _frozen(array: Any, dtype: type[np.unsignedinteger[Any]], name: str) -> NDArray[Any]:
    # A read-only view, so that nobody can change a snapshot; it is not a copy if the type is right already.
    given = np.asarray(array)
    if given.size and given.dtype.kind not in "ui":
        raise UsageError(f"a snapshot's {name} must be unsigned integers, not {given.dtype}")
    if given.size and given.dtype != dtype and not 0 <= int(given.min()) <= int(given.max()) <= np.iinfo(dtype).max:
        raise UsageError(f"a snapshot's {name} must be from 0 to {np.iinfo(dtype).max}")
    view = given.astype(dtype, copy=False).view()
    view.flags.writeable = False
    return view


def _has_all_bits(bits: NDArray[np.uint32], state: State) -> NDArray[np.bool_]:
    try:
        wanted = np.uint32(operator.index(state))
    except TypeError:
        raise UsageError(f"{state!r} is not a State; give State.PRESENT, or State.PRESENT | State.UFFD_WP") from None
    found: NDArray[np.bool_] = (bits & wanted) == wanted
    return found


def _return_and_write(text: str, path: str | os.PathLike[str] | None) -> str:
    if path is not None:
        Path(path).write_text(text, encoding="utf-8")
    return text
