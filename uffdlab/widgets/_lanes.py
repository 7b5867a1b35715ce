"""A timeline as events in lanes: what each did to the pages, and how long a DONTWAKE left somebody asleep."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, Any

from uffdlab import uapi
from uffdlab.errors import UsageError
from uffdlab.snapshot import Snapshot

if TYPE_CHECKING:
    from uffdlab.timeline import Entry

LANES = {"touch": "touches", "message": "messages", "ioctl": "ioctls", "snapshot": "page tables"}
_OTHER = "other"
_COLUMN, _ROW, _LEFT, _TOP = 26, 30, 110, 14
_COLOURS = {"touch": "#009E73", "message": "#D55E00", "ioctl": "#0072B2", "snapshot": "#E69F00"}
_LETTERS = {"touch": "T", "message": "M", "ioctl": "I", "snapshot": "S"}


def events(entries: list[Entry]) -> list[dict[str, Any]]:
    """Give each entry as plain data: number, lane, times in µs from the first, text, what changed, its DONTWAKE gap."""
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
                "lane": entry.kind if entry.kind in LANES else _OTHER,
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
        return "first look"
    try:
        return str(taken - before).replace("\n", "; ")
    except UsageError:
        return ""


def _gap(entries: list[Entry], index: int) -> int | None:
    # For an ioctl with DONTWAKE: the number of the entry that wakes its range, -1 if none does yet.
    name, low, high, sleeps = _woken(entries[index])
    if not name or not sleeps:
        return None
    for later in entries[index + 1 :]:
        other, start, end, asleep = _woken(later)
        if other and not asleep and start < high and end > low:
            return later.number
    return -1


def _woken(entry: Entry) -> tuple[str, int, int, bool]:
    # An ioctl that wakes when it succeeds: its name, range in bytes, and whether DONTWAKE keeps it from that.
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
    # WRITEPROTECT with WP wakes nobody; that is no gap either.
    if name in ("UFFDIO_WRITEPROTECT", "UFFDIO_RWPROTECT") and mode & 1:
        return "", 0, 0, False
    return name, start, start + values.get("len", 0), sleeps


def svg(title: str, rows: list[dict[str, Any]]) -> str:
    """Draw the events, a column each in the order they came, as SVG text."""
    names = [*LANES, _OTHER]
    lanes = [lane for lane in names if any(row["lane"] == lane for row in rows)] or ["ioctl"]
    width, height = _LEFT + _COLUMN * max(1, len(rows)) + 14, _TOP + _ROW * len(lanes) + 24
    where = {row["n"]: at for at, row in enumerate(rows)}
    parts = []
    for at, lane in enumerate(lanes):
        y = _TOP + _ROW * at + _ROW // 2
        parts.append(f'<line x1="{_LEFT}" y1="{y}" x2="{width - 10}" y2="{y}" stroke="#7a7a7a"/>')
        parts.append(f'<text x="6" y="{y + 4}" fill="#1a1a1a">{LANES.get(lane, lane)}</text>')
    for at, row in enumerate(rows):
        x, y = _LEFT + _COLUMN * at, _TOP + _ROW * lanes.index(row["lane"])
        if row["gap"] is not None:
            end = _LEFT + _COLUMN * where.get(row["gap"], len(rows))
            parts.append(
                f'<line x1="{x + 11}" y1="{y + 28}" x2="{end + 11}" y2="{y + 28}" stroke="#d55e00" stroke-width="3" '
                'stroke-dasharray="5 3"><title>asleep: DONTWAKE</title></line>'
            )
        ink = "#000000" if row["lane"] in ("snapshot", "message", "touch") else "#ffffff"
        colour = _COLOURS.get(row["lane"], "#BBBBBB")
        words = html.escape(f"{row['at']:,} µs: {row['text']}" + (f" ({row['change']})" if row["change"] else ""))
        parts.append(
            f'<g><title>{words}</title><rect x="{x}" y="{y + 4}" width="22" height="22" fill="{colour}" '
            f'stroke="#1a1a1a"/><text x="{x + 11}" y="{y + 20}" text-anchor="middle" fill="{ink}" '
            f'font-weight="bold">{_LETTERS.get(row["lane"], "·")}</text></g>'
        )
    said = html.escape(f"{title}: " + "; ".join(f"{row['at']:,} µs {row['text']}" for row in rows[:40]))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'role="img" aria-label="{said}" font-family="DejaVu Sans, sans-serif" font-size="12">'
        f'<rect width="100%" height="100%" fill="#ffffff"/>{"".join(parts)}</svg>\n'
    )
