"""A sheet: the contents of a form or a panel as text, and as HTML, picture and CSV for pages without a live kernel."""

from __future__ import annotations

import csv
import html
import io
import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING

from uffdlab.observations.html_table import html_table
from uffdlab.widgets._export import drawings, html_page

if TYPE_CHECKING:
    import os

    from uffdlab.figures import Picture

_WIDE = 100  # characters


@dataclass(frozen=True)
class Sheet:
    """Names with their values, and longer texts.

    Attributes
    ----------
    title : str
    rows : tuple of (str, str)
        A name and its value.
    texts : tuple of (str, str)
        A caption and a text whose lines stay as they are.
    """

    title: str
    rows: tuple[tuple[str, str], ...]
    texts: tuple[tuple[str, str], ...] = ()

    def html(self) -> str:
        """Return the sheet as an HTML table and preformatted texts."""
        texts = "".join(
            f'<p>{html.escape(caption)}</p><pre style="font-family:monospace">{html.escape(text)}</pre>'
            for caption, text in self.texts
        )
        return html_table(self.title, (), self.rows) + texts

    def picture(self) -> Picture:
        """Return the sheet as a picture; its alt text has the same contents."""
        lines: list[tuple[str, str]] = [("bold", self.title)]
        wide = max((len(name) for name, _ in self.rows), default=0) + 2
        for name, what in self.rows:
            first, *rest = textwrap.wrap(what, max(_WIDE - wide, 40)) or [""]
            lines += [("code", f"{name:<{wide}}{first}"), *(("code", " " * wide + each) for each in rest)]
        for caption, text in self.texts:
            lines += [("", ""), ("plain", caption)]
            for line in text.expandtabs(8).rstrip().splitlines():
                lines += [("code", each) for each in textwrap.wrap(line, _WIDE, drop_whitespace=False) or [""]]
        values = "; ".join(f"{name}: {what}" for name, what in self.rows)
        texts = "".join(f" {caption}: {' '.join(text.split())}." for caption, text in self.texts)
        return drawings.text(lines, f"{self.title}: {values}.{texts}")

    def csv(self) -> str:
        """Return the sheet as CSV: one line for each name, one for each text."""
        out = io.StringIO()
        csv.writer(out, lineterminator="\n").writerows([("name", "value"), *self.rows, *self.texts])
        return out.getvalue()


class Sheeted(html_page.Pictured):
    """A widget whose static form is a sheet."""

    def sheet(self) -> Sheet:
        """Return the contents as plain text."""
        raise NotImplementedError

    def static(self) -> str:
        """Return the contents as plain HTML, for pages without a live kernel."""
        return self.sheet().html()

    def picture(self) -> Picture:
        """Return the contents as a picture with alt text."""
        return self.sheet().picture()

    def to_csv(self, path: str | os.PathLike[str] | None = None) -> str:
        """Return the contents as CSV, a name and its value in each line; write it to `path` if given."""
        return html_page.deliver(self.sheet().csv(), path)
