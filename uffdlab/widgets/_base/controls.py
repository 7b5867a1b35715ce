"""The base of the widgets made of ipywidgets' controls, and two small controls that ipywidgets lacks."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import ipywidgets  # type: ignore[import-untyped]
import traitlets

from uffdlab.widgets._assets import css, javascript
from uffdlab.widgets._base.static_output import OutputHolder, StaticOutput
from uffdlab.widgets._base.widget import LabWidget, check_keywords
from uffdlab.widgets._export import html_page

if TYPE_CHECKING:
    import os


class LabBox(StaticOutput, ipywidgets.VBox):  # type: ignore[misc]  # ipywidgets has no types
    """Controls in a column; checks keywords, removes its listeners when closed, has a static form."""

    _keywords: tuple[str, ...] = ()
    _releases: tuple[Callable[[], None], ...] = ()  # remove its current listeners
    _closing: tuple[Callable[[], None], ...] = ()  # called when it is closed

    def __init__(self, children: list[ipywidgets.Widget], **keywords: Any) -> None:
        check_keywords(type(self).__name__, keywords, self._keywords)
        super().__init__(children, **keywords)
        self.add_class("uffdlab")

    def close(self) -> None:
        """Close the widget, with everything in it and all its listeners."""
        for release in (*self._closing, *self._releases):
            release()
        self._releases = ()
        for child in self.children:
            close_all(child)
        self.layout.close()
        super().close()

    def static(self) -> str:
        """Return the contents as plain HTML, for pages without a live kernel."""
        return ""

    def static_html(self) -> str:
        """Return the static form as HTML."""
        return self.static()

    def live_bundle(self) -> dict[str, Any]:
        """Return the MIME bundle of the live widget."""
        data: dict[str, Any] = ipywidgets.VBox._repr_mimebundle_(self)
        return {**data, "text/plain": f"{type(self).__name__}; its last state is below"}

    def to_html(self, path: str | os.PathLike[str] | None = None) -> str:
        """Return one self-contained HTML page with the contents; write it to `path` if given."""
        before = f'<div class="uffdlab">{self.static()}</div>'
        return html_page.deliver(html_page.page(type(self).__name__, [], css("page_grid.css"), before), path)

    def catch_up(self) -> None:
        """Apply the updates that wait for the event loop, before the widget is printed."""

    def _repr_mimebundle_(self, **keywords: Any) -> Any:
        self.catch_up()
        bundle = super()._repr_mimebundle_(**keywords)
        data, metadata = bundle if isinstance(bundle, tuple) else (bundle, {})
        return {**(data or {}), "text/html": self.static()}, metadata


def close_all(widget: ipywidgets.Widget) -> None:
    """Close a widget with its children, layout and style; ipywidgets keeps for ever what is not closed."""
    for child in getattr(widget, "children", ()):
        close_all(child)
    for of in ("layout", "style"):
        look = getattr(widget, of, None)
        if isinstance(look, ipywidgets.Widget):
            look.close()
    widget.close()


class CodeBox(LabWidget):
    """A text with a button that copies it."""

    _esm = javascript("code_box.js")
    _css = css("page_grid.css")
    _keywords = ("text", "label")

    text = traitlets.Unicode().tag(sync=True)
    label = traitlets.Unicode().tag(sync=True)


class StatusLine(OutputHolder, LabWidget):
    """A line of text; a screen reader announces its changes.  It can update the static form of the box it is in."""

    _esm = javascript("status_line.js")
    _css = css("page_grid.css")
    _keywords = ("text",)

    text = traitlets.Unicode().tag(sync=True)
