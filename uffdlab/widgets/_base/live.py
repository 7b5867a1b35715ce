"""The bases of the widgets that show a running lab: those with their own JavaScript, and those made of controls."""

from __future__ import annotations

from typing import Any

import anywidget
import ipywidgets  # type: ignore[import-untyped]
import traitlets

from uffdlab.widgets._assets import css, javascript
from uffdlab.widgets._base.controls import LabBox
from uffdlab.widgets._base.lab_lifecycle import Follower
from uffdlab.widgets._base.static_output import OutputHolder, StaticOutput
from uffdlab.widgets._base.widget import LabWidget


class LiveWidget(OutputHolder, StaticOutput, Follower, LabWidget):
    """A widget with its own JavaScript, which shows the bar of ``lab_ended_bar.js`` above it."""

    def static_html(self) -> str:
        """Return the static form as HTML."""
        return self.fallback()["text/html"]

    def live_bundle(self) -> dict[str, Any]:
        """Return the MIME bundle of the live widget."""
        data, _ = anywidget.AnyWidget._repr_mimebundle_(self) or ({}, {})
        return {**data, "text/plain": repr(self)}

    def output_part(self) -> OutputHolder:
        """Return itself."""
        return self

    def _handle(self, content: dict[str, Any]) -> None:
        if content.get("ask") == "start again":
            self.start_again()

    def close(self) -> None:
        """Close the widget and its listeners, and the lab if it was started here and no other widget uses it."""
        self.leave_lab()
        super().close()


class LiveBox(Follower, LabBox):
    """Controls, with the bar of ``lab_ended_bar.js`` above them."""

    def __init__(self, children: list[ipywidgets.Widget], **keywords: Any) -> None:
        self._bar = EndBar(self)
        super().__init__([self._bar, *children], **keywords)
        for name in ("ended", "_starts"):
            traitlets.dlink((self, name), (self._bar, name))

    def output_part(self) -> OutputHolder:
        """Return the bar, which has JavaScript of its own."""
        return self._bar

    def close(self) -> None:
        """Close the widget with its controls, and the lab if it was started here and no other widget uses it."""
        self.leave_lab()
        super().close()


class EndBar(OutputHolder, LabWidget):
    """Shows why a lab has ended, with a button that starts it again; updates the static form of the box it is in."""

    _esm = javascript("lab_ended_widget.js")
    _css = css("page_grid.css")

    ended = traitlets.Unicode().tag(sync=True)
    _starts = traitlets.Bool().tag(sync=True)

    def __init__(self, of: Follower) -> None:
        self._of = of
        super().__init__()

    def _handle(self, _content: dict[str, Any]) -> None:
        self._of.start_again()
