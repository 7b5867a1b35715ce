"""LabPanel: what a lab runs, what its kernel can do, what it wrote; a new target, a new boot, the end."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, Any

import ipywidgets  # type: ignore[import-untyped]
import traitlets

from uffdlab.errors import UffdlabError
from uffdlab.uapi import FEATURES_SINCE, Feature, flag_names
from uffdlab.widgets._box import Said, preformatted
from uffdlab.widgets._live import LiveBox
from uffdlab.widgets._succession import announce
from uffdlab.widgets.kernel_picker import KernelPicker

if TYPE_CHECKING:
    from uffdlab.lab import Lab

_TAIL = 15  # lines


class LabPanel(LiveBox):
    """One lab: its kernel, capabilities and console; buttons to start anew.

    Parameters
    ----------
    lab : Lab
        What is shown.

    Attributes
    ----------
    lab : Lab
        Trait.  Another one after *boot*.
    """

    _keywords = ("lab",)

    lab = traitlets.Any()

    def __init__(self, lab: Lab, **keywords: Any) -> None:
        self.facts = ipywidgets.HTML()
        self.said = Said()
        self.target = self._button("new target", "end the target process and start a new one", self.restart_target)
        self.back = self._button("reset", "put the lab back to where it began, on a new machine", self.reset)
        self.look = self._button("look again", "read the state and the console again", self.refresh)
        self.end = self._button("close", "end the machine", self.close_lab)
        self.picker = KernelPicker(lab.kernel)
        buttons = ipywidgets.HBox([self.look, self.target, self.back, self.end], layout={"flex_flow": "row wrap"})
        super().__init__([self.facts, buttons, self.said, self.picker], **keywords)
        self.lab = lab
        self.picker.observe(self._booted, "lab")
        self.follow_lab(lab.timeline)
        self.refresh()

    @staticmethod
    def _button(name: str, tip: str, action: Any) -> ipywidgets.Button:
        button = ipywidgets.Button(description=name, tooltip=tip)
        button.on_click(lambda _button: action())
        return button

    def _booted(self, change: dict[str, Any]) -> None:
        # All widgets of the old one go over, this one among them; its machine is not needed any more.
        old = self.lab
        announce(old, change["new"])
        old.close()

    def _go_over(self, lab: Lab) -> None:
        self.lab = lab
        self.said.text = "a new machine runs"
        self.refresh()

    def _has_ended(self) -> None:
        self.refresh()

    def restart_target(self) -> None:
        """End the target process, with its regions and userfaultfds, and start a new one."""
        try:
            self.lab.restart_target()
            self.said.text = "a new target process runs; map new regions"
        except UffdlabError as error:
            self.said.text = f"{error} — boot starts a new lab"
        self.refresh()

    def reset(self) -> None:
        """Put the lab back to where it began, whatever has become of it; the widgets of this lab go on with it."""
        try:
            self.lab.reset()
        except UffdlabError as error:
            self.said.text = f"{error} — boot starts a new lab"
            self.refresh()
        else:
            announce(self.lab, self.lab)

    def close_lab(self) -> None:
        """End the machine."""
        self.lab.close()
        self.said.text = "this lab is closed; boot starts a new one"
        self.refresh()

    def refresh(self) -> None:
        """Read the state and the console again."""
        self.facts.value = self.static()

    def static(self) -> str:
        """Give the facts and the console's last lines as HTML."""
        lab = self.lab
        rows = [("lab", repr(lab))]
        try:
            lab.call("agent.ping")  # what is known of a lab outlives its machine
            can = lab.capabilities
        except UffdlabError as error:
            rows.append(("state", f"{error} — boot starts a new lab"))
        else:
            lacks = Feature(sum(int(flag) for flag in FEATURES_SINCE)) & ~can["features"]
            wp = {True: "yes", False: "no", None: "not known"}[can["continue_wp"]]
            rows += [
                ("UFFDIO_CONTINUE_MODE_WP", wp),
                ("features", flag_names(can["features"], Feature).replace("|", ", ")),
                ("lacks", flag_names(lacks, Feature).replace("|", ", ") if lacks else "none of those known here"),
                ("witnesses", ", ".join(lab.witnesses)),
            ]
        body = "".join(
            f'<tr><th scope="row" style="text-align:left">{html.escape(name)}</th><td>{html.escape(text)}</td></tr>'
            for name, text in rows
        )
        tail = "\n".join(lab.console.splitlines()[-_TAIL:])
        return f"<table>{body}</table>{preformatted('console, the last lines', tail)}"
