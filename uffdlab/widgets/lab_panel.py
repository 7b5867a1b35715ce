"""LabPanel: the kernel of a lab, its capabilities and its console; buttons to restart, boot and close."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import ipywidgets  # type: ignore[import-untyped]
import traitlets

from uffdlab.errors import UffdlabError
from uffdlab.uapi import FEATURES_SINCE, Feature, flag_names
from uffdlab.uapi.protocol.agent import Ping
from uffdlab.widgets._base.background import BackgroundReader, run_in_background
from uffdlab.widgets._base.controls import StatusLine
from uffdlab.widgets._base.lab_lifecycle import announce
from uffdlab.widgets._base.live import LiveBox
from uffdlab.widgets._export.sheet import Sheet, Sheeted
from uffdlab.widgets.kernel_picker import KernelPicker

if TYPE_CHECKING:
    from collections.abc import Callable

    from uffdlab.lab import Lab

_TAIL = 15  # lines


class LabPanel(Sheeted, LiveBox):
    """One lab: its kernel, capabilities and console; buttons to restart and close it.

    Parameters
    ----------
    lab : Lab
        The lab that is shown.

    Attributes
    ----------
    lab : Lab
        Trait.  The lab that is shown; a new one after *boot*.
    """

    _keywords = ("lab",)

    lab = traitlets.Any()

    def __init__(self, lab: Lab, **keywords: Any) -> None:
        self.facts = ipywidgets.HTML()
        self.status = StatusLine()
        self._busy, self._sheet = False, Sheet("Lab", ())
        self._reader = BackgroundReader(self._read, self._show, self._show_error)
        self._closing = (self._reader.close,)
        self.look = self._button("refresh", "read the state and the console again", self._reader.ask)
        self.target, self.back, self.end = (
            self._button(name, tip, functools.partial(self._start, action, doing))
            for name, tip, action, doing in (
                ("new target", "end the target process and start a new one", self._new_target, "a new target starts …"),
                (
                    "reset",
                    "start the lab again on a new machine",
                    self._reset_machine,
                    "a new machine starts …",
                ),
                ("close", "end the machine", self._end, "the machine ends …"),
            )
        )
        self.picker = KernelPicker(lab.kernel)
        buttons = ipywidgets.HBox([self.look, self.target, self.back, self.end], layout={"flex_flow": "row wrap"})
        super().__init__([self.facts, buttons, self.status, self.picker], **keywords)
        self.lab = lab
        self.picker.observe(self._booted, "lab")
        self.facts.observe(self.update_soon, "value")
        self.follow_lab(lab.timeline)
        self.refresh()

    @staticmethod
    def _button(name: str, tip: str, action: Callable[[], object]) -> ipywidgets.Button:
        button = ipywidgets.Button(description=name, tooltip=tip)
        button.on_click(lambda _button: action())
        return button

    def _start(self, action: Callable[[], str], doing: str) -> None:
        # Slow actions run on another thread, one at a time.
        if not self._busy:
            self._busy, self.status.text = True, doing
            run_in_background(action, self._finished)

    def _booted(self, change: dict[str, Any]) -> None:
        # All widgets of the old lab, also this one, switch to the new one.  Nobody needs the old machine any more.
        old = self.lab
        announce(old, change["new"])
        run_in_background(old.close, lambda _nothing: None)

    def _switch_to(self, lab: Lab) -> None:
        self.lab = lab
        self.status.text = "a new machine runs"
        self._reader.forget()
        self._reader.ask()

    def _has_ended(self) -> None:
        self._reader.ask()

    def restart_target(self) -> None:
        """End the target process, with its regions and userfaultfds, and start a new one."""
        self._finished(self._new_target())

    def _new_target(self) -> str:
        try:
            self.lab.restart_target()
        except UffdlabError as error:
            return f"{error} — boot starts a new lab"
        return "a new target process runs; map new regions"

    def reset(self) -> None:
        """Start the lab again on a new machine, even if it has ended; its widgets continue with it."""
        self._finished(self._reset_machine())

    def _reset_machine(self) -> str:
        try:
            self.lab.reset()
        except UffdlabError as error:
            return f"{error} — boot starts a new lab"
        announce(self.lab, self.lab)
        return "a new machine runs"

    def close_lab(self) -> None:
        """End the machine."""
        self._finished(self._end())

    def _end(self) -> str:
        self.lab.close()
        return "this lab is closed; boot starts a new one"

    def _finished(self, text: str) -> None:
        self._busy, self.status.text = False, text
        self._reader.ask()

    # --- contents

    def refresh(self) -> None:
        """Read the state and the console again."""
        self._reader.now()

    def catch_up(self) -> None:
        """Show every pending update now."""
        if self._reader.busy:
            self.refresh()

    def _read(self) -> Sheet:
        lab = self.lab
        rows = [("lab", repr(lab))]
        try:
            lab.ask(Ping())  # fails if the machine is gone; the capabilities stay known
            can = lab.capabilities
        except UffdlabError as error:
            rows.append(("state", f"{error} — boot starts a new lab"))
        else:
            lacks = Feature(sum(int(flag) for flag in FEATURES_SINCE)) & ~can.features
            wp = {True: "yes", False: "no", None: "not known"}[can.continue_wp]
            rows += [
                ("UFFDIO_CONTINUE_MODE_WP", wp),
                ("features", flag_names(can.features, Feature).replace("|", ", ")),
                ("lacks", flag_names(lacks, Feature).replace("|", ", ") if lacks else "none of those known to uffdlab"),
                ("witnesses", ", ".join(lab.witnesses)),
            ]
        tail = "\n".join(lab.console.splitlines()[-_TAIL:])
        return Sheet("Lab", tuple(rows), (("console, the last lines", tail or "nothing yet"),))

    def _show(self, sheet: Sheet) -> None:
        self._sheet = sheet
        self.facts.value = sheet.html()

    def _show_error(self, error: Exception) -> None:
        self._show(Sheet("Lab", (("state", str(error)),)))

    def sheet(self) -> Sheet:
        """Return the facts and the last lines of the console as plain text."""
        return self._sheet
