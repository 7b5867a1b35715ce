"""Timeline: what happened in a lab, in order, with times of the guest's clock."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

from msgspec import Struct

from uffdlab.observations.html_table import html_table


class TimelineEntry(Struct, frozen=True):
    """One thing that happened.

    Attributes
    ----------
    number : int
        Its number in the timeline, from 0.
    kind : str
        ``map``, ``unmap``, ``ioctl``, ``message``, ``touch``, ``snapshot``, ``witness``, ``exec``, ``target`` (its
        start, fork or end) or ``lab`` (its end).
    text : str
        What happened, in one line.
    started_ns, ended_ns : int
        The guest's CLOCK_MONOTONIC in ns.  They are equal for an entry without duration.
    what : object
        The result, message, touch or snapshot itself; for an end, the error.
    """

    number: int
    kind: str
    text: str
    started_ns: int
    ended_ns: int
    what: Any


class Timeline:
    """Entries in the order in which they reached the host.  All methods are thread-safe.

    Parameters
    ----------
    lab : Lab, optional
        The lab of this timeline, by a weak reference.
    """

    def __init__(self, lab: object = None) -> None:
        self._lab = None if lab is None else weakref.ref(lab)
        self._entries: list[TimelineEntry] = []
        self._lock = threading.Lock()
        self._listeners: list[Callable[[TimelineEntry], None]] = []

    def add(
        self, kind: str, text: str, started_ns: int, ended_ns: int | None = None, what: Any = None
    ) -> TimelineEntry:
        """Append one entry."""
        with self._lock:
            end = started_ns if ended_ns is None else ended_ns
            entry = TimelineEntry(len(self._entries), kind, text, started_ns, end, what)
            self._entries.append(entry)
            listeners = tuple(self._listeners)
        for listener in listeners:
            listener(entry)
        return entry

    def listen(self, listener: Callable[[TimelineEntry], None]) -> Callable[[], None]:
        """Call `listener` with each new entry, on the thread that adds it.  The listener must not wait.

        Returns
        -------
        callable
            A function that removes the listener.  It may be called twice.
        """
        with self._lock:
            self._listeners.append(listener)

        def end() -> None:
            with self._lock:
                if listener in self._listeners:
                    self._listeners.remove(listener)

        return end

    @property
    def lab(self) -> Any:
        """The lab of this timeline; None if it does not exist any more."""
        return None if self._lab is None else self._lab()

    def newest(self, count: int) -> list[TimelineEntry]:
        """Return the last `count` entries, or all if there are fewer, in their order."""
        return self._entries[-count:] if count > 0 else []

    def __len__(self) -> int:
        return len(self._entries)

    def __getitem__(self, index: int) -> TimelineEntry:
        return self._entries[index]

    def __iter__(self) -> Iterator[TimelineEntry]:
        with self._lock:
            return iter(tuple(self._entries))

    def rows(self) -> list[tuple[str, str, str, str]]:
        """Return (start, duration, kind, text) of each entry, sorted by start.

        Times are in µs, the start counted from the first entry.  A touch is before what happened at the same time.
        """
        entries = sorted(self, key=lambda entry: (entry.started_ns, entry.kind != "touch"))
        zero = min((entry.started_ns for entry in entries), default=0)
        return [
            (
                f"{(entry.started_ns - zero) / 1000:,.1f}",
                f"{(entry.ended_ns - entry.started_ns) / 1000:,.1f}" if entry.ended_ns > entry.started_ns else "",
                entry.kind,
                entry.text,
            )
            for entry in entries
        ]

    def __str__(self) -> str:
        lines = [f"{'start µs':>14} {'took µs':>12}  what happened"]
        lines += [f"{start:>14} {took:>12}  {kind}: {text}" for start, took, kind, text in self.rows()]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        return html_table("Timeline", ("start, µs", "took, µs", "kind", "what happened"), self.rows(), right=(0, 1))
