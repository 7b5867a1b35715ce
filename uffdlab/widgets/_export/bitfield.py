"""The fields of an entry as an HTML table in two lines."""

from __future__ import annotations

import html
from collections.abc import Sequence

from uffdlab.pte import Bit, first_the_important

_SET = "background:#0072B2;color:#FFFFFF;font-weight:700"
_CLEAR = "background:none"  # that of the page: a light cell would glow in a dark theme
_CELL = "border:1px solid #7a7a7a;padding:1px 3px;text-align:center;white-space:nowrap;font-size:0.82em"


def bitfield(caption: str, bits: Sequence[Bit]) -> str:
    """Return an HTML table with a column for each field, highest bit first: numbers, name, value.

    The meaning is the title of the name.  The fields are in two lines, so that the table fits onto a printed page.
    """
    half = (len(bits) + 1) // 2
    rows = "".join(_line(bits[at : at + half]) for at in range(0, len(bits), half or 1))
    head = f'<caption style="text-align:left">{html.escape(caption)}</caption>'
    label = html.escape(caption)
    return (
        f'<div style="overflow-x:auto" tabindex="0" role="group" aria-label="{label}">'
        f'<table style="border-collapse:collapse">{head}{rows}</table></div>'
    )


def _line(bits: Sequence[Bit]) -> str:
    numbers = names = values = ""
    for bit in bits:
        number = str(bit.number) if bit.width == 1 else f"{bit.number + bit.width - 1}–{bit.number}"
        value = str(bit.value) if bit.width <= 5 else f"{bit.value:#x}"
        numbers += f'<th scope="col" style="{_CELL}">{number}</th>'
        names += f'<td style="{_CELL}" title="{html.escape(bit.meaning)}">{html.escape(bit.name)}</td>'
        values += f'<td style="{_CELL};{_SET if bit.value else _CLEAR}">{value}</td>'
    return "".join(
        f'<tr><th scope="row" style="text-align:left;padding-right:0.6em">{name}</th>{cells}</tr>'
        for name, cells in (("bit", numbers), ("name", names), ("value", values))
    )


def meanings(bits: Sequence[Bit]) -> str:
    """Return the meanings of the fields that are set, as an HTML list; uffd-wp and writable come first."""
    items = "".join(
        f"<li>{html.escape(bit.name)}: {html.escape(bit.meaning)}</li>"
        for bit in first_the_important(bits)
        if bit.value and bit.name
    )
    return f"<ul>{items}</ul>" if items else ""
