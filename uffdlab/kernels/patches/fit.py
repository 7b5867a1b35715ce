"""Fit the hunks of a patch to a file by their content, because line numbers and white space may be wrong."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from uffdlab.kernels.patches.c_indent import restore
from uffdlab.kernels.patches.c_tokens import change_as, fold

if TYPE_CHECKING:
    from collections.abc import Sequence

    from uffdlab.kernels.patches.hunks import Hunk

DEADLINE = 120.0  # s for a whole mail
_WINDOW = 600  # lines before and after the expected line, in the search for a hunk that differs from the file
_TOLERANCE = 0.4  # differences for each line of the hunk
_LONG_LINES = 2  # lines that must be equal and long
_LONG_LINE = 4  # characters
_LONGEST = 1000  # lines of a hunk in that search; its time grows with their square
_MOST_PLACES_SHOWN = 8
_OTHER = 1.2  # cost of a line that differs; an additional or missing line costs 1


@dataclass(frozen=True)
class Placement:
    """The placement of a hunk.

    `outcome` is ``placed``, ``guessed`` or ``unplaced``. `line` is the line of the tree, from 1, or 0 for none. `why`
    is the reason for an outcome other than ``placed``.
    """

    hunk: Hunk
    outcome: str
    line: int
    why: str


@dataclass(frozen=True)
class _Place:
    # `lines` has the tree's line for each old line of the hunk, or None if the tree lacks it.
    lines: tuple[int | None, ...]
    outcome: str
    why: str

    @property
    def first(self) -> int:
        return min(line for line in self.lines if line is not None)


def fit(lines: Sequence[str], hunks: Sequence[Hunk], until: float | None = None) -> tuple[list[str], list[Placement]]:
    """Apply the hunks that have a place, in their order.

    Parameters
    ----------
    lines : sequence of str
        The file, without line ends.
    hunks : sequence of Hunk
        The hunks of one file.
    until : float, optional
        The deadline in time.monotonic(), in seconds; by default `DEADLINE` from now.

    Returns
    -------
    list of str
        The new lines.
    list of Placement
        The placement of each hunk.
    """
    until = time.monotonic() + DEADLINE if until is None else until
    folded = [fold(line) for line in lines]
    made: list[str] = []
    done = 0  # lines of the old file that are in `made`
    drift = 0
    placements = []
    for hunk in hunks:
        expected = hunk.start - 1 + drift
        late = "the time limit for the search has passed" if time.monotonic() > until else None
        spot = late or _place(lines, folded, hunk, done, expected)
        if isinstance(spot, str):
            placements.append(Placement(hunk, "unplaced", 0, spot))
            continue
        if not spot.lines:
            at = min(max(done, hunk.start), len(lines))
            made += lines[done:at]
            made += [text for _, text in hunk.lines] if _has_all_lines(hunk) else restore(made, [], _texts(hunk, "+"))
            done = at
            placements.append(Placement(hunk, spot.outcome, at + 1, spot.why))
            continue
        done = _apply(lines, hunk, spot, made, done)
        first = spot.first - next(i for i, line in enumerate(spot.lines) if line is not None)
        drift = first - (hunk.start - 1)
        why = spot.why
        outcome = spot.outcome
        if hunk.missing:
            outcome, why = "guessed", f"{why}; the header counts {hunk.missing} more lines than there are".lstrip("; ")
        placements.append(Placement(hunk, outcome, first + 1, why))
    return [*made, *lines[done:]], placements


def _texts(hunk: Hunk, kinds: str) -> list[str]:
    return [text for kind, text in hunk.lines if kind in kinds]


def _has_all_lines(hunk: Hunk) -> bool:
    return any(text.startswith("\t") for text in _texts(hunk, "+"))


def _place(lines: Sequence[str], folded: list[str], hunk: Hunk, floor: int, expected: int) -> _Place | str:
    old = _texts(hunk, " -")
    if not old:
        if lines and hunk.start == 0:
            return "it adds a file that already exists"
        return _Place((), "guessed" if lines else "placed", "it has no context lines to find it by" if lines else "")
    for have, wanted in ((lines, old), (folded, [fold(line) for line in old])):
        at = [p for p in range(floor, len(lines) - len(old) + 1) if have[p : p + len(old)] == wanted]
        if at:
            return _choose(at, len(old), folded, hunk, expected)
    new = [fold(text) for text in _texts(hunk, " +")]
    if any(folded[p : p + len(new)] == new for p in range(len(lines) - len(new) + 1)):
        return "the tree has this change already"
    return _find_similar(lines, folded, hunk, floor, expected)


def _choose(at: list[int], size: int, folded: list[str], hunk: Hunk, expected: int) -> _Place:
    def spot(first: int, outcome: str, why: str) -> _Place:
        return _Place(tuple(range(first, first + size)), outcome, why)

    nearest = min(at, key=lambda p: abs(p - expected))
    if len(at) == 1 or nearest == expected:
        return spot(nearest, "placed", "")
    inside = [p for p in at if _in_section(folded, p, hunk)]
    if len(inside) == 1:
        return spot(inside[0], "placed", "")
    nearest = min(inside or at, key=lambda p: abs(p - expected))
    return spot(
        nearest, "guessed", f"{len(inside or at)} places are equal to it; this is the nearest to the header's line"
    )


def _in_section(folded: list[str], first: int, hunk: Hunk) -> bool:
    section = fold(hunk.section)
    if not section:
        return False
    back = next((p for p in range(first - 1, -1, -1) if folded[p].startswith(section)), None)
    return back is not None and "}" not in folded[back:first]


def _find_similar(lines: Sequence[str], folded: list[str], hunk: Hunk, floor: int, expected: int) -> _Place | str:
    # Finds the alignment with the fewest differences. Each line that the patch removes must exist, or the patch must
    # be able to make the same change in a similar line.
    rows = _rows(hunk)
    if len(rows) > _LONGEST:
        return f"no place in the file is equal, and the hunk has more than {_LONGEST} lines"
    low = max(floor, expected - _WINDOW)
    high = max(low, min(len(lines), expected + len(rows) + _WINDOW))
    costs, steps = _align(rows, lines[low:high], folded[low:high])
    ends = sorted(range(high - low + 1), key=lambda j: (costs[j], abs(low + j - len(rows) - expected)))
    best = costs[ends[0]]
    if best > max(_OTHER, _TOLERANCE * len(rows)):
        return "no place in the file is like it"
    equal = [j for j in ends if costs[j] <= best and abs(j - ends[0]) > len(rows)]
    inside = [j for j in (ends[0], *equal) if _in_section(folded, low + j - 1, hunk)]
    if equal and len(inside) != 1:
        at = [str(low + j) for j in sorted([ends[0], *equal])]
        more = ["…"] if len(at) > _MOST_PLACES_SHOWN else []
        return f"{len(at)} places are equally similar to it, at lines " + ", ".join(at[:_MOST_PLACES_SHOWN] + more)
    found = _trace(steps, inside[0] if equal else ends[0], low)
    same = [
        row.text for row, line in zip(rows, found, strict=True) if line is not None and folded[line] == fold(row.text)
    ]
    if sum(len(fold(text)) >= _LONG_LINE for text in same) < _LONG_LINES:
        return "no place in the file is like it"
    return _Place(tuple(found), "guessed", _differences(rows, found, lines, folded))


@dataclass(frozen=True)
class _Row:
    text: str
    removed: bool
    instead: str | None  # for a removed line: the added line that replaces it, if there are as many of both


def _rows(hunk: Hunk) -> list[_Row]:
    rows = []
    for kind, removed, added in _blocks(hunk):
        for index, text in enumerate(removed):
            pairs = kind == "change" and len(removed) == len(added)
            rows.append(_Row(text, kind == "change", added[index] if pairs else None))
    return rows


def _blocks(hunk: Hunk) -> list[tuple[str, list[str], list[str]]]:
    # Returns ("context", [line], []) and ("change", removed, added).
    blocks: list[tuple[str, list[str], list[str]]] = []
    for kind, text in hunk.lines:
        if kind == " ":
            blocks.append(("context", [text], []))
            continue
        if not blocks or blocks[-1][0] == "context" or (kind == "-" and blocks[-1][2]):
            blocks.append(("change", [], []))
        _, removed, added = blocks[-1]
        (removed if kind == "-" else added).append(text)
    return blocks


def _align(rows: list[_Row], lines: Sequence[str], folded: list[str]) -> tuple[list[float], list[list[str]]]:
    width = len(lines) + 1
    costs = [0.0] * width
    steps = [["start"] * width]
    for number, row in enumerate(rows, 1):
        wanted = fold(row.text)
        drop = math.inf if row.removed else 1.0
        fresh = [costs[0] + drop]
        step = ["drop"]
        for j in range(1, width):
            if wanted == folded[j - 1]:
                other = costs[j - 1]
            else:
                other = costs[j - 1] + _OTHER if _may_differ(row, lines[j - 1]) else math.inf
            more = fresh[j - 1] + 1 if number < len(rows) else math.inf
            least = min(other, costs[j] + drop, more)
            step.append("line" if least == other else "more" if least == more else "drop")
            fresh.append(least)
        costs = fresh
        steps.append(step)
    return costs, steps


def _may_differ(row: _Row, line: str) -> bool:
    if not row.removed:
        return bool(line.strip()) and bool(row.text.strip())
    return row.instead is not None and change_as(line, row.text, row.instead) is not None


def _trace(steps: list[list[str]], end: int, low: int) -> list[int | None]:
    found: list[int | None] = []
    i, j = len(steps) - 1, end
    while i > 0:
        step = steps[i][j]
        if step == "more":
            j -= 1
            continue
        found.append(low + j - 1 if step == "line" else None)
        i -= 1
        j -= step == "line"
    return found[::-1]


def _differences(rows: list[_Row], found: list[int | None], lines: Sequence[str], folded: list[str]) -> str:
    reasons = []
    last: int | None = None
    for row, line in zip(rows, found, strict=True):
        if line is None:
            reasons.append(f"the tree has no `{row.text.strip()}`")
            continue
        if last is not None and line > last + 1:
            reasons += [f"the tree has `{extra.strip()}` too" for extra in lines[last + 1 : line]]
        if folded[line] != fold(row.text):
            reasons.append(f"the tree has `{lines[line].strip()}` for `{row.text.strip()}`")
        last = line
    return "; ".join(reasons)


def _apply(lines: Sequence[str], hunk: Hunk, spot: _Place, made: list[str], done: int) -> int:
    # Appends the hunk's new lines to `made`. Returns how many lines of the old file are done.
    rows = _rows(hunk)
    # If the white space of the context lines is right, so is that of the added lines.
    exact = all(
        line is None or lines[line] == row.text or fold(lines[line]) != fold(row.text)
        for row, line in zip(rows, spot.lines, strict=True)
    )

    def indent(removed: list[str], added: list[str]) -> list[str]:
        return added if exact else restore(made, removed, added)

    made += lines[done : spot.first]
    done = spot.first
    row = 0
    for kind, removed, added in _blocks(hunk):
        at = spot.lines[row : row + len(removed)]
        row += len(removed)
        placed = [line for line in at if line is not None]
        if kind == "context":
            if placed:
                made += lines[done : placed[0] + 1]
                done = placed[0] + 1
            continue
        if not removed:
            made += indent([], added)
            continue
        made += lines[done : placed[0]]
        theirs = [lines[line] for line in placed]
        if all(fold(line) == fold(text) for line, text in zip(theirs, removed, strict=True)):
            between = [lines[line] for line in range(placed[0], placed[-1]) if line not in placed]
            made += between + indent(theirs, added)
        else:
            for line, text, new in zip(placed, removed, added, strict=True):
                made += lines[done:line] if line > placed[0] else []
                made.append(change_as(lines[line], text, new) or new)
                done = line + 1
        done = placed[-1] + 1
    return done
