"""A timeline as events in lanes: what each changed, and how long a DONTWAKE left threads asleep."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from uffdlab import uapi
from uffdlab.errors import UsageError
from uffdlab.observations.snapshot import Snapshot

if TYPE_CHECKING:
    from uffdlab.target.timeline import TimelineEntry

LANES = {"touch": "touches", "message": "messages", "ioctl": "ioctls", "snapshot": "page tables"}
OTHER = "other"


def events(entries: list[TimelineEntry]) -> list[dict[str, Any]]:
    """Return each entry as plain data: number, lane, times in µs from the first, text, change, DONTWAKE gap."""
    zero = min((entry.started_ns for entry in entries), default=0)
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
    return found


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
