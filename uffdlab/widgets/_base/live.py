"""The two sorts of widget that show a lab which may end: with JavaScript of their own, and made of controls."""

from __future__ import annotations

from typing import Any

import ipywidgets  # type: ignore[import-untyped]
import traitlets

from uffdlab.widgets._assets import css, javascript
from uffdlab.widgets._base.controls import LabBox
from uffdlab.widgets._base.lab_lifecycle import Follower
from uffdlab.widgets._base.widget import LabWidget


class LiveWidget(Follower, LabWidget):
    """A widget with JavaScript of its own, which puts ``lab_ended.js``'s bar above it."""

    def _asked(self, content: dict[str, Any]) -> None:
        if content.get("ask") == "start again":
            self.start_again()

    def close(self) -> None:
        """Take the widget away, with every listener it has, and a lab that was started here for nobody else."""
        self.leave_lab()
        super().close()


class LiveBox(Follower, LabBox):
    """Controls, with the bar above them."""

    def __init__(self, children: list[ipywidgets.Widget], **keywords: Any) -> None:
        self._bar = EndBar(self)
        super().__init__([self._bar, *children], **keywords)
        for name in ("ended", "_starts"):
            traitlets.dlink((self, name), (self._bar, name))

    def close(self) -> None:
        """Take it away, with everything in it, and a lab that was started here for nobody else."""
        self.leave_lab()
        super().close()


class EndBar(LabWidget):
    """Says why a lab is of no use any more, and has a button that starts it again."""

    _esm = javascript("lab_ended_bar.js")
    _css = css("page_grid.css")

    ended = traitlets.Unicode().tag(sync=True)
    _starts = traitlets.Bool().tag(sync=True)

    def __init__(self, of: Follower) -> None:
        self._of = of
        super().__init__()

    def _asked(self, _content: dict[str, Any]) -> None:
        self._of.start_again()
