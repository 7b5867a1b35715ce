"""KernelPicker: choose a kernel and boot a lab on it, with progress."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import ipywidgets  # type: ignore[import-untyped]
import traitlets

from uffdlab import kernels
from uffdlab.lab import Lab
from uffdlab.widgets._base.controls import LabBox, StatusLine
from uffdlab.widgets._base.event_loop import run_in_loop
from uffdlab.widgets._base.lab_lifecycle import Follower
from uffdlab.widgets._base.static_output import OutputHolder
from uffdlab.widgets._export.sheet import Sheet, Sheeted

if TYPE_CHECKING:
    from collections.abc import Callable

_STEPS = 0.005  # of a stage; smaller progress is not shown


class KernelPicker(Sheeted, Follower, LabBox):
    """A list of the kernels, and a button that boots a lab on the chosen one.

    Fetching, building and booting happen on a background thread, so the notebook remains usable.

    Parameters
    ----------
    kernel : str
        The kernel that is chosen initially.

    Attributes
    ----------
    lab : Lab or None
        Trait.  The lab that was booted last.  Close the previous one yourself.
    """

    _keywords = ("kernel",)

    lab = traitlets.Any(allow_none=True)

    def __init__(self, kernel: str = "6.1-series", **keywords: Any) -> None:
        self._about = kernels.Supply().names()
        self._about.setdefault(kernel, "not in the catalogue")
        style = {"description_width": "initial"}
        self.kernel = ipywidgets.Dropdown(options=list(self._about), value=kernel, description="kernel", style=style)
        self.button = ipywidgets.Button(description="boot", button_style="primary", tooltip="boot a lab on this kernel")
        self.bar = ipywidgets.FloatProgress(value=0, min=0, max=1, layout={"visibility": "hidden"})
        self.about, self.status = StatusLine(text=self._about[kernel]), StatusLine()
        self._open, self._thread = True, threading.Thread()
        super().__init__([ipywidgets.HBox([self.kernel, self.button, self.bar]), self.about, self.status], **keywords)
        self.kernel.observe(self._chosen, "value")
        self.status.observe(self.update_soon, "text")
        self.button.on_click(lambda _button: self.boot())

    def _chosen(self, change: dict[str, Any]) -> None:
        self.about.text = self._about[change["new"]]

    def boot(self) -> threading.Thread:
        """Boot a lab on the chosen kernel; set `lab` when it runs.

        Returns
        -------
        Thread
            The thread that boots: a new one, or the one that is already running.
        """
        if not self._thread.is_alive():
            name = str(self.kernel.value)
            self.button.description = "boots …"  # not disabled: that would remove the keyboard focus
            self.bar.layout.visibility = "visible"
            self._show_share(None)
            self.status.text = f"{name} boots …"
            self._thread = threading.Thread(target=self._boot, args=(name,), name=f"boot {name}", daemon=True)
            self._thread.start()
        return self._thread

    def _boot(self, name: str) -> None:
        try:
            kernels.get(name, progress=_ProgressDisplay(self._report))
            self._report(f"{name} boots …", None)
            lab = Lab(name)
        except Exception as error:  # noqa: BLE001 - every error is shown to the user
            message = str(error)
            run_in_loop(lambda: self._ended(None, message))
            return
        run_in_loop(lambda: self._ended(lab, f"{name} runs: Linux {lab.release}"))

    def _report(self, text: str, share: float | None) -> None:
        def show() -> None:
            if self._open:
                self.status.text = text
                self._show_share(share)

        run_in_loop(show)

    def _show_share(self, share: float | None) -> None:
        # Where nobody knows how much is done, a part of the bar moves to and fro.
        self.bar.value = share or 0
        if share is None:
            self.bar.add_class("uffdlab-moving")
        else:
            self.bar.remove_class("uffdlab-moving")

    def _ended(self, lab: Lab | None, text: str) -> None:
        if not self._open:
            if lab is not None:
                lab.close()
            return
        self.status.text = text
        self.button.description, self.bar.layout.visibility = "boot", "hidden"
        if lab is not None:
            self.lab = lab
            self.follow_lab(lab.timeline)

    def _has_ended(self) -> None:
        self.status.text = f"{self.ended}; boot starts a new one"

    def close(self) -> None:
        """Close the widget; a lab that is still booting is closed as soon as it runs."""
        self._open = False
        self.leave_lab()
        super().close()

    # --- without a live kernel

    def output_part(self) -> OutputHolder:
        """Return the status line, which has JavaScript of its own."""
        return self.status

    def sheet(self) -> Sheet:
        """Return the kernels, the chosen one, and its state."""
        rows = [(name, self._about[name]) for name in self.kernel.options]
        return Sheet("Kernels", (*rows, ("chosen", f"{self.kernel.value}: {self.status.text or 'not booted'}")))


class _ProgressDisplay:
    """A Progress (uffdlab.kernels) that reports a text and the share of the stage that is done."""

    def __init__(self, report: Callable[[str, float | None], None]) -> None:
        self._report, self._text, self._total, self._last = report, "", 0, 0.0

    def start(self, kernel: str, text: str) -> None:
        """Report the start."""
        self._report(f"{kernel}: {text}", None)

    def stage(self, text: str, total: int = 0, unit: str = "") -> None:
        """Report the start of a stage."""
        self._text, self._total, self._last = f"{text} ({unit})" if unit else text, total, 0.0
        self._report(self._text, 0.0 if total else None)

    def at(self, done: int) -> None:
        """Report how much of the stage is done."""
        share = min(1.0, done / self._total) if self._total else 0.0
        if share - self._last >= _STEPS:
            self._last = share
            self._report(self._text, share)

    def finish(self, text: str) -> None:
        """Report the end."""
        self._report(text, 1.0)

    def close(self) -> None:
        """Do nothing: nothing is open."""
