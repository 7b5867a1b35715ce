"""A timeline as events in lanes: what each changed, and how long a DONTWAKE left threads asleep."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from uffdlab import uapi
from uffdlab.errors import UsageError
from uffdlab.observations.snapshot import Snapshot

if TYPE_CHECKING:
    from collections.abc import Sequence

    from uffdlab.target.timeline import TimelineEntry
    from uffdlab.target.touch import Touch

LANES = {"touch": "touches", "message": "messages", "ioctl": "ioctls", "snapshot": "page tables"}
OTHER = "other"


def events(
    entries: list[TimelineEntry], zero_ns: int | None = None, running: Sequence[Touch[object]] = ()
) -> list[dict[str, Any]]:
    """Return each entry, and each touch that has not ended, as plain data, sorted by when it began.

    Parameters
    ----------
    entries : list of TimelineEntry
        In the order in which the host learned of them.
    zero_ns : int, optional
        The time that times are counted from; by default the earliest.
    running : sequence of Touch
        The touches that have not ended; their ``n`` is negative.

    Returns
    -------
    list of dict
        ``n`` number, ``lane``, ``at`` and ``took`` in µs (-1: has not ended), ``text``, ``change``, ``gap``.
    """
    zero = min((entry.started_ns for entry in entries), default=0) if zero_ns is None else zero_ns
    last: dict[tuple[str, int, int], Snapshot] = {}
    found = []
    for index, entry in enumerate(entries):
        change = ""
        if isinstance(entry.what, Snapshot):
            change = _change(entry.what, last)
        found.append(
            {
                "n": entry.number,
                "lane": entry.kind if entry.kind in LANES else OTHER,
                "at": round((entry.started_ns - zero) / 1000, 1),
                "took": round((entry.ended_ns - entry.started_ns) / 1000, 1),
                "text": entry.text,
                "change": change,
                "gap": _gap(entries, index),
            }
        )
    for touch in running:
        at = round((touch.started_ns - zero) / 1000, 1)
        text = f"{touch.what}: not ended"
        found.append(
            {"n": -2 - touch.number, "lane": "touch", "at": at, "took": -1.0, "text": text, "change": "", "gap": None}
        )
    return sorted(found, key=lambda each: (each["at"], each["lane"] != "touch"))


def _change(taken: Snapshot, last: dict[tuple[str, int, int], Snapshot]) -> str:
    key = taken.region, taken.start, len(taken)
    before, last[key] = last.get(key), taken
    if before is None:
        return "first snapshot"
    try:
        return str(taken - before).replace("\n", "; ")
    except UsageError:
        return ""


def _gap(entries: list[TimelineEntry], index: int) -> int | None:
    # For an ioctl with DONTWAKE: the number of the entry that wakes its range, -1 if there is none yet.
    name, low, high, sleeps = _woken(entries[index])
    if not name or not sleeps:
        return None
    for later in entries[index + 1 :]:
        other, start, end, asleep = _woken(later)
        if other and not asleep and start < high and end > low:
            return later.number
    return -1


def _woken(entry: TimelineEntry) -> tuple[str, int, int, bool]:
    # For an ioctl that wakes when it succeeds: its name, its range in bytes, and whether DONTWAKE prevents that.
    result = entry.what
    name = getattr(result, "name", "") if entry.kind == "ioctl" else ""
    if name not in uapi.IOCTLS or not getattr(result, "ok", False):
        return "", 0, 0, False
    modes = uapi.IOCTLS[name].modes.__members__
    if name != "UFFDIO_WAKE" and "DONTWAKE" not in modes:
        return "", 0, 0, False
    values = result.values
    start, mode = values.get("start", values.get("dst", 0)), values.get("mode", 0)
    sleeps = "DONTWAKE" in modes and bool(mode & modes["DONTWAKE"])
    if mode & uapi.IOCTLS[name].protects:  # protecting pages wakes no thread, so there is no gap
        return "", 0, 0, False
    return name, start, start + values.get("len", 0), sleeps
