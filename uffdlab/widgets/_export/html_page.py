"""Widgets as one HTML file that needs no kernel: their JavaScript, their data, and the entries they may request."""

from __future__ import annotations

import base64
import gzip
import html
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from uffdlab import figures, pte
from uffdlab.widgets._assets import javascript

if TYPE_CHECKING:
    import os

    from numpy.typing import NDArray

    from uffdlab.observations.snapshot import Snapshot

_Text = TypeVar("_Text", str, bytes)
_MOST_LAYOUTS = 4096
_FRAME = 0x5A5A5  # replaces frame numbers, to find their place in the entries again


def entry(snapshot: Snapshot, page: int) -> dict[str, Any]:
    """Return the entry of one page as the grid shows it."""
    index = page - snapshot.first
    table = figures.entry(snapshot, page)
    address = snapshot.start + index * snapshot.page_size
    frame = int(snapshot.frames()[index]) if len(snapshot) <= 4096 else int(snapshot[index].frames()[0])
    raw = int(snapshot.entries[index])
    return {
        "title": table.title,
        "raw": f"{raw:#018x}{pte.level_text(raw, int(snapshot.levels[index]), snapshot.page_size)}",
        "state": table.note,
        "facts": f"Address {address:#x}, " + (f"page frame {frame:#x}." if frame >= 0 else "no page frame known."),
        "rows": [list(row) for row in table.rows],
    }


@dataclass(frozen=True)
class Part:
    """One widget of a page.

    Attributes
    ----------
    title : str
        Its heading.
    module : str
        Its JavaScript.
    state : dict
        Its traits other than bytes.
    data : dict of str to bytes
        Its traits of type bytes.
    snapshots : dict of str to Snapshot or None
        The snapshots that provide its entries: ``after``, ``before``.
    """

    title: str
    module: str
    state: dict[str, Any]
    data: dict[str, bytes]
    snapshots: dict[str, Snapshot | None] = field(default_factory=dict)

    def embedded(self) -> dict[str, Any]:
        """Return the data that the page embeds for it."""
        return {
            "title": self.title,
            "module": self.module,
            "state": {"ended": "", "_starts": False, **self.state},
            "bytes": {name: _compressed(each) for name, each in self.data.items()},
            "details": {name: _details(each) for name, each in self.snapshots.items() if each is not None},
        }


def page(title: str, parts: Sequence[Part], style: str, before: str = "", after: str = "") -> str:
    """Return the whole HTML page: `before`, the widgets, `after`."""
    # "</" must not occur inside a script element.
    embedded = json.dumps([part.embedded() for part in parts], ensure_ascii=False).replace("</", "<\\/")
    modules = ",\n".join(
        f'"{name}": (() => {{\n{javascript(name).replace("export default", "return")}\n}})()'
        for name in dict.fromkeys(part.module for part in parts)
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title>\n<style>\n:root {{ color-scheme: light dark; }}\n{style}</style></head>\n"
        f'<body><main><h1 class="uffdlab-hidden">{html.escape(title)}</h1>{before}'
        '<div id="widgets"></div><noscript>This page needs JavaScript.</noscript>'
        f"{after}</main>\n"
        f'<script type="application/json" id="data">{embedded}</script>\n'
        f'<script type="module">\nconst widgets = {{{modules}}};\n{javascript("standalone.js")}</script>'
        "</body></html>\n"
    )


class Pictured:
    """A widget that can be drawn as SVG and as PNG."""

    def picture(self) -> figures.Picture:
        """Return the contents as a picture with alt text."""
        raise NotImplementedError

    def to_svg(self, path: str | os.PathLike[str] | None = None) -> str:
        """Return the picture as SVG text; write it to `path` if given."""
        return deliver(self.picture().svg(), path)

    def to_png(self, path: str | os.PathLike[str] | None = None) -> bytes:
        """Return the picture as PNG; write it to `path` if given."""
        return deliver(self.picture().png(), path)


def deliver(content: _Text, path: str | os.PathLike[str] | None) -> _Text:
    """Return `content`; write it to `path` if given."""
    if path is not None:
        Path(path).write_bytes(content.encode() if isinstance(content, str) else content)
    return content


def _compressed(data: bytes) -> str:
    return base64.b64encode(gzip.compress(data, mtime=0)).decode()


def _details(snapshot: Snapshot) -> dict[str, Any]:
    # Every entry, and a table of fields for each that differs in more than its frame number.
    entries = snapshot.entries.astype("<u8")
    different, of_entry = np.unique(_without_frames(snapshot), return_inverse=True)
    keys, which = np.unique(of_entry.reshape(-1) * 8 + snapshot.levels, return_inverse=True)
    layouts = [_layout(snapshot, int(different[key >> 3]), key & 7) for key in keys[:_MOST_LAYOUTS].tolist()]
    return {
        "entries": _compressed(entries.tobytes()),
        "layouts": layouts,
        "which": _compressed(which.reshape(-1).astype("<u2" if len(keys) <= 1 << 16 else "<u4").tobytes()),
        "wide": len(keys) > 1 << 16,
        "title": f"{snapshot.region}, page {{page}}{f' on {snapshot.kernel}' if snapshot.kernel else ''}, "
        f"seen by {snapshot.witness}: {{entry}}",
        "first": snapshot.first,
        "start": hex(snapshot.start),
        "page_size": snapshot.page_size,
    }


def _without_frames(snapshot: Snapshot) -> NDArray[np.uint64]:
    # The entries with a mark in place of the frame number.
    form, masked = pte.FORMATS[snapshot.form], snapshot.entries.copy()
    if form.frame_field is None:
        return masked
    frames = form.frames(snapshot.entries, snapshot.levels)
    for level in np.unique(snapshot.levels).tolist():
        field = form.frame_field(level)
        # An entry that is present for the kernel only may encode its frame differently, as on x86-64.
        plain = (snapshot.levels == level) & (frames >= 0) & (frames == field.frames(snapshot.entries))
        masked[plain] = field.mark(masked[plain], _FRAME)
    return masked


def _layout(snapshot: Snapshot, entry: int, level: int) -> dict[str, Any]:
    frame_field = pte.FORMATS[snapshot.form].frame_field
    low, top, shift = frame_field(level) if frame_field else (0, 0, 0)
    marked = bool(frame_field) and entry >> low & (1 << top - low) - 1 == _FRAME
    rows = []
    for bit in pte.first_the_important(pte.explain(snapshot.form, entry, level)):
        name = str(bit.number) if bit.width == 1 else f"{bit.number + bit.width - 1}–{bit.number}"
        value, meaning = str(bit.value) if bit.width <= 5 else f"{bit.value:#x}", bit.meaning
        if marked and bit.name == "frame":
            value, meaning = "{value}", meaning.replace(f"{_FRAME << shift:#x}", "{frame}")
        rows.append([name, bit.name, value, meaning])
    return {
        "rows": rows,
        "low": low,
        "top": top,
        "shift": shift,
        "framed": marked,
        "where": pte.level_text(entry, level, snapshot.page_size),
    }
