"""The static form of a widget in the output of its cell, updated while the widget is used.

A widget that is displayed gives its cell two outputs: the live widget, and its static form, which is hidden while the
live one is there.  So a saved notebook has the last state, on GitHub, exported, and opened again without its Python.

In JupyterLab and Notebook the browser puts a new static form into the output (``static_output.js``), also after the tab
was reloaded.  Elsewhere it is sent as an update of a display.
"""

from __future__ import annotations

import html
import threading
import time
import uuid
from typing import Any

import traitlets
from IPython.display import publish_display_data

from uffdlab.widgets._base import event_loop

_QUIET = 1.0  # s without a change before the static form is made
_INTERVAL = 5.0  # s between two
_NOTE = "The last state of a live widget.  Run the cell again for a live one."
# Where Python has ended, JupyterLab says "model not found" in place of the live widget, or for ever that it loads: the
# output before the static form then has no element.  A viewer that takes styles away shows both.
_HIDE_MISSING = (
    "<style>.jp-OutputArea-child:has(+ .jp-OutputArea-child > .jp-OutputArea-output > .uffdlab-static-form)"
    ":not(:has(> .jp-OutputArea-output > *)) { display: none; }</style>"
)


class OutputHolder(traitlets.HasTraits):
    """A widget whose JavaScript puts a static form, its own or that of the box it is in, into the cell's output."""

    static_form = traitlets.Unicode().tag(sync=True)  # the static form
    output_id = traitlets.Unicode().tag(sync=True)  # names the output that holds it
    in_browser = traitlets.Bool().tag(sync=True)  # whether the browser puts it there


class StaticOutput(traitlets.HasTraits):
    """A widget whose static form is in the output of its cell."""

    _due = False
    _made = 0.0
    _last_change = 0.0

    def static_html(self) -> str:
        """Return the static form as HTML."""
        raise NotImplementedError

    def catch_up(self) -> None:
        """Apply the updates that wait for the event loop."""

    def live_bundle(self) -> dict[str, Any]:
        """Return the MIME bundle of the live widget."""
        raise NotImplementedError

    def output_part(self) -> OutputHolder:
        """Return the part whose JavaScript puts the static form into the output."""
        raise NotImplementedError

    def _ipython_display_(self) -> None:
        self.catch_up()
        live = self.live_bundle()
        self.output_part().output_id = uuid.uuid4().hex
        publish_display_data(live)  # type: ignore[no-untyped-call]
        self._publish(self._wrapped(), update=False)

    def _publish(self, text: str, *, update: bool) -> None:
        name = self.output_part().output_id
        transient = {"display_id": name}
        publish_display_data({"text/html": text}, {"uffdlab": name}, transient=transient, update=update)  # type: ignore[no-untyped-call]
        self._made = time.monotonic()

    def _wrapped(self) -> str:
        note = f"{_HIDE_MISSING}<p>{html.escape(_NOTE)}</p>"
        return f'<div class="uffdlab uffdlab-static-form">{note}{self.static_html()}</div>'

    def update_soon(self, _change: object = None) -> None:
        """Make the static form again when nothing has changed for a second.  Called on any thread."""
        self._last_change = time.monotonic()
        if not self._due and self.output_part().output_id and event_loop.running() is not None:
            self._due = True
            event_loop.later(max(_QUIET, self._made + _INTERVAL - time.monotonic()), self._update_when_quiet)

    def _update_when_quiet(self) -> None:
        quiet = time.monotonic() - self._last_change
        if quiet < _QUIET:
            event_loop.later(_QUIET - quiet, self._update_when_quiet)
            return
        self._due = False
        # Its pictures take a second: on another thread.
        threading.Thread(target=self._make, name="uffdlab static form", daemon=True).start()

    def _make(self) -> None:
        text = self._wrapped()
        event_loop.run_in_loop(lambda: self._put(text))

    def _put(self, text: str) -> None:
        holder = self.output_part()
        if holder.in_browser:
            holder.static_form, self._made = text, time.monotonic()
        else:
            self._publish(text, update=True)
