"""Two snapshots of the same pages in a terminal: a letter for each page, on its colour."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from uffdlab.figures.palette import CELL_STYLES, CellStyle, cell_styles

if TYPE_CHECKING:
    from uffdlab.observations.snapshot import Snapshot

_COLUMNS = 16
_WIDTH = 2  # characters of a page


def side_by_side(before: Snapshot, after: Snapshot) -> str:
    """Return the pages `before` and `after` as two grids side by side, and below them what each letter means.

    The text has colours.  ``click.echo`` leaves them out where the output is not a terminal.
    """
    columns = min(_COLUMNS, len(before))
    grids = [_rows(_styles(snapshot), columns) for snapshot in (before, after)]
    used = {style.letter for snapshot in (before, after) for style in _styles(snapshot)}
    return "\n".join(
        [
            f"{'before':<{_WIDTH * columns}}   after",
            *(f"{left}   {right}" for left, right in zip(*grids, strict=True)),
            "   ".join(f"{letter} {style.text}" for letter, style in CELL_STYLES.items() if letter in used),
        ]
    )


def _styles(snapshot: Snapshot) -> list[CellStyle]:
    styles, which = cell_styles(snapshot.states, snapshot.known)
    return [styles[index] for index in which.tolist()]


def _rows(styles: list[CellStyle], columns: int) -> list[str]:
    rows = [styles[start : start + columns] for start in range(0, len(styles), columns)]
    return ["".join(map(_cell, row)) + " " * _WIDTH * (columns - len(row)) for row in rows]


def _cell(style: CellStyle) -> str:
    return click.style(f"{style.letter:<{_WIDTH}}", fg=_rgb(style.ink), bg=_rgb(style.colour))


def _rgb(colour: str) -> tuple[int, int, int]:
    red, green, blue = bytes.fromhex(colour.removeprefix("#"))
    return red, green, blue
