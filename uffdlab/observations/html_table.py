"""Write a table in HTML: a caption, headers with a scope, escaped cells."""

from __future__ import annotations

from collections.abc import Collection, Iterable


class Html(str):
    """Text of a cell that is HTML already and is not escaped."""

    __slots__ = ()


def html_table(
    title: str,
    heads: Iterable[str],
    rows: Iterable[Iterable[str]],
    note: str = "",
    *,
    right: Collection[int] = (),
) -> str:
    """Return a table as HTML; the first cell of each row is its header.

    Parameters
    ----------
    title : str
        The caption.
    heads : iterable of str
        The column headers; a table without any has no head.
    rows : iterable of iterable of str
        The cells.  All are escaped except those of type :class:`Html`.
    note : str
        A paragraph below the table.
    right : collection of int
        The numbers of the columns that are aligned to the right; all others are aligned to the left.
    """

    def style(column: int) -> str:
        return f'style="text-align:{"right" if column in right else "left"}"'

    head = "".join(f'<th scope="col" {style(column)}>{_cell(text)}</th>' for column, text in enumerate(heads))
    body = ""
    for first, *rest in rows:
        cells = "".join(f"<td {style(column)}>{_cell(text)}</td>" for column, text in enumerate(rest, 1))
        body += f'<tr><th scope="row" {style(0)}>{_cell(first)}</th>{cells}</tr>'
    top = f"<thead><tr>{head}</tr></thead>" if head else ""
    foot = f"<p>{_escaped(note)}</p>" if note else ""
    return (
        f'<table><caption style="text-align:left;white-space:nowrap">{_escaped(title)}</caption>'
        f"{top}<tbody>{body}</tbody></table>{foot}"
    )


def _cell(text: str) -> str:
    return text if isinstance(text, Html) else _escaped(text)


def _escaped(text: str) -> str:
    import html  # noqa: PLC0415 - it has a table of all entities, and every lab imports this module

    return html.escape(text)
