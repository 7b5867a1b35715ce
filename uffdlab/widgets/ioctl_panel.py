"""IoctlPanel: choose an ioctl, its pages and its mode bits, see the call as C and as Python, make the call."""

from __future__ import annotations

import enum
import re
from typing import TYPE_CHECKING, Any

import ipywidgets  # type: ignore[import-untyped]
import traitlets

from uffdlab.errors import IoctlError, UffdlabError, UsageError
from uffdlab.uapi import IOCTLS
from uffdlab.widgets._base.background import run_in_background
from uffdlab.widgets._base.controls import CodeBox, StatusLine
from uffdlab.widgets._base.lab_lifecycle import counterpart, counterpart_userfaultfd
from uffdlab.widgets._base.live import LiveBox
from uffdlab.widgets._data import ioctl_call
from uffdlab.widgets._export.sheet import Sheet, Sheeted

if TYPE_CHECKING:
    from uffdlab.lab import Lab
    from uffdlab.target.region import Region
    from uffdlab.target.results import IoctlResult
    from uffdlab.target.userfaultfd import Userfaultfd
    from uffdlab.widgets.page_grid import PageGrid

_WIDE: Any = {"description_width": "initial"}


class IoctlPanel(Sheeted, LiveBox):
    """A form for every ioctl of a userfaultfd, made from :data:`uffdlab.uapi.IOCTLS`.

    Parameters
    ----------
    uffd : Userfaultfd
        The userfaultfd on which the ioctls are made.
    region : Region
        The region that has the pages.
    grid : PageGrid, optional
        Its selection becomes the range.
    ioctl : str
        The ioctl that is chosen initially.

    Attributes
    ----------
    result : IoctlResult, IoctlError or None
        Trait.  The result of the last call.
    """

    _keywords = ("uffd", "region", "grid", "ioctl")

    result = traitlets.Any(allow_none=True)

    def __init__(
        self,
        uffd: Userfaultfd,
        region: Region,
        *,
        grid: PageGrid | None = None,
        ioctl: str = "UFFDIO_CONTINUE",
        **keywords: Any,
    ) -> None:
        if ioctl not in IOCTLS:
            raise UsageError(f"{ioctl!r} is no ioctl of a userfaultfd; the ioctls are {', '.join(IOCTLS)}")
        self._uffd, self._region, self._grid, self._sending = uffd, region, grid, False
        self._by_grid = ""  # the range that the grid's selection gave
        self._capabilities = region.lab.capabilities
        self.ioctl = ipywidgets.Dropdown(
            options=[(self._named(name), name) for name in IOCTLS], value=ioctl, description="ioctl", style=_WIDE
        )
        self.pages = ipywidgets.Text(
            value=f"0-{region.pages - 1}", description="pages", placeholder="0-31", continuous_update=False, style=_WIDE
        )
        self.range = StatusLine()
        self.all_pages = ipywidgets.Button(
            description=f"all {region.pages:,} pages", tooltip="take all pages of the region", layout={"width": "auto"}
        )
        self.modes = ipywidgets.VBox()
        self.more = ipywidgets.VBox()
        self.bits = ipywidgets.Text(value="0x0", description="further mode bits", style=_WIDE)
        self.data = ipywidgets.Text(value="", description="content to copy", style=_WIDE)
        self.button = ipywidgets.Button(description="send", button_style="primary", tooltip="send this ioctl")
        self.button.layout.width, self.button.layout.align_self = "auto", "flex-start"
        self.c = CodeBox(label="as C")
        self.python = CodeBox(label="as Python")
        self.status = StatusLine()
        code = ipywidgets.HBox([self.c, self.python], layout={"flex_flow": "row wrap"})
        place = ipywidgets.HBox([self.pages, self.all_pages], layout={"flex_flow": "row wrap"})
        rows = [self.ioctl, place, self.range, self.modes, self.more, self.button, self.status, code]
        super().__init__(rows, **keywords)
        self.ioctl.observe(self._chosen, "value")
        for each in (self.pages, self.bits, self.data):
            each.observe(self._changed, "value")
        self.button.on_click(self._clicked)
        self.all_pages.on_click(self._take_all)
        if grid is not None:
            grid.observe(self._selected, "selection")
            self._releases = (lambda: grid.unobserve(self._selected, "selection"),)
        self.follow_lab(region.lab.timeline)
        for line in (self.status, self.range, self.c):
            line.observe(self.update_soon, "text")
        self._chosen()
        self._selected()

    # --- the lab

    def _needed_regions(self) -> tuple[Region, ...]:
        return (self._region,)

    def _switch_to(self, lab: Lab) -> None:
        self._region = counterpart(self._region, lab)
        self._uffd = counterpart_userfaultfd(self._uffd, lab)
        self._capabilities = lab.capabilities
        self.status.text = f"the range is now in {self._region.name}; nothing is registered yet"
        self._chosen()

    # --- the form

    def _named(self, name: str) -> str:
        lacks = ", this kernel lacks it" if ioctl_call.lacking(name, None, self._capabilities) else ""
        return f"{name} (Linux {ioctl_call.since(name)}{lacks})"

    def _chosen(self, _change: object = None) -> None:
        name = self.ioctl.value
        boxes = [self._checkbox(name, flag) for flag in ioctl_call.flag_list(name)]
        fields = [
            ipywidgets.Text(value="0x0", description=field, style=_WIDE)
            for field in ioctl_call.other_fields(name)
            if not (name == "UFFDIO_COPY" and field == "src")
        ]
        for each in (*boxes, *fields):
            each.observe(self._changed, "value")
        old = (*self.modes.children, *(each for each in self.more.children if each not in (self.bits, self.data)))
        self.modes.children = boxes
        has_mode = "mode" in IOCTLS[name].fields
        self.more.children = [
            *fields,
            *([self.data] if name == "UFFDIO_COPY" else []),
            *([self.bits] if has_mode else []),
        ]
        self.pages.disabled = "len" not in IOCTLS[name].fields
        for each in old:
            each.close()
        self._changed()

    def _checkbox(self, name: str, flag: enum.IntFlag) -> ipywidgets.Checkbox:
        lacks = "; this kernel lacks it" if ioctl_call.lacking(name, flag, self._capabilities) else ""
        text = (
            f"{flag.name} ({int(flag):#x}): {ioctl_call.does(name, flag)} (Linux {ioctl_call.since(name, flag)}{lacks})"
        )
        box = ipywidgets.Checkbox(description=text, indent=False, layout={"width": "auto"})
        box.flag = flag
        return box

    def _selected(self, _change: object = None) -> None:
        if self._grid is None:
            return
        if self._grid.selection:
            first, count = self._grid.selection
            self._by_grid = str(first) if count == 1 else f"{first}-{first + count - 1}"
            self.pages.value = self._by_grid
        elif self.pages.value == self._by_grid:
            self._take_all()
        self._changed()

    def _take_all(self, _button: object = None) -> None:
        if self._grid is not None:
            self._grid.selection = []
        self.pages.value = f"0-{self._region.pages - 1}"

    def _describe_range(self, call: ioctl_call.IoctlCall) -> None:
        # Say so where the range is not the whole region, because a click into the grid is enough to narrow it.
        ranged, whole = "len" in IOCTLS[call.ioctl].fields, call.count == self._region.pages
        name = "page" if call.count == 1 else "pages"
        why = ", those selected in the grid" if self._grid is not None and self._grid.selection else ""
        chosen = f"only {call.count:,} of {self._region.pages:,} pages{why}"
        self.range.text = "" if not ranged or whole else chosen
        self.all_pages.layout.visibility = "hidden" if not ranged or whole else "visible"
        pages = f"all {call.count:,} pages" if whole else f"{name} {self.pages.value}"
        self.button.description = f"send for {pages}" if ranged else "send"

    def _changed(self, _change: object = None) -> None:
        try:
            call = self.call
        except UsageError as error:
            self.status.text = str(error)
            self.button.disabled = True
            self.c.text = self.python.text = self.range.text = ""  # no text of an earlier range
            return
        if self.button.disabled:
            self.status.text, self.button.disabled = "", False
        self._describe_range(call)
        self.c.text = call.c()
        self.python.text = call.python(self.data.value.encode())

    def check(self, *names: str) -> None:
        """Tick the boxes of these mode bits (``"WP"``, ``"DONTWAKE"``) and untick all others.

        Raises
        ------
        UsageError
            If the chosen ioctl has no such mode bit.
        """
        boxes = {str(box.flag.name): box for box in self.modes.children}
        strange = [name for name in names if name not in boxes]
        if strange:
            raise UsageError(f"{self.ioctl.value} has no mode {strange[0]!r}; it has {', '.join(boxes) or 'none'}")
        for name, box in boxes.items():
            box.value = name in names

    # --- the call

    @property
    def call(self) -> ioctl_call.IoctlCall:
        """The call that the form describes.

        Raises
        ------
        UsageError
            If a field of the form is malformed.
        """
        first, count = _range(self.pages.value, self._region.pages)
        size = self._region.page_size
        mode = sum(int(box.flag) for box in self.modes.children if box.value) | _number("mode", self.bits.value)
        others = {
            each.description: _number(each.description, each.value)
            for each in self.more.children
            if each not in (self.bits, self.data)
        }
        start = self._region.start + first * size
        return ioctl_call.IoctlCall(self.ioctl.value, start, count * size, first, count, mode, others)

    def send_ioctl(self) -> IoctlResult | IoctlError | None:
        """Make the ioctl call that the form describes.

        Returns
        -------
        IoctlResult, IoctlError or None
            The error explains the errno.  None if the call was not made; `status` shows why.
        """
        try:
            outcome, text = self._sent(self.call, self.data.value.encode())
        except UsageError as error:
            outcome, text = None, str(error)
        self._finished(outcome, text)
        return outcome

    def _clicked(self, _button: object) -> None:
        # The kernel may be slow, so another thread makes the call.  The button is not disabled meanwhile, because that
        # would remove the keyboard focus.
        if self._sending:
            return
        try:
            call, data = self.call, self.data.value.encode()
        except UsageError as error:
            self._finished(None, str(error))
            return
        self._sending = True
        run_in_background(lambda: self._sent(call, data), lambda result: self._finished(*result))

    def _sent(self, call: ioctl_call.IoctlCall, data: bytes) -> tuple[IoctlResult | IoctlError | None, str]:
        source = data[: call.length].ljust(call.length, b"\0") if call.ioctl == "UFFDIO_COPY" else None
        try:
            outcome = self._uffd.ioctl(call.ioctl, call.values, source=source, where=call.where)
        except IoctlError as error:
            return error, f"{error} ({error.done:,} bytes were done)" if error.done else str(error)
        except UffdlabError as error:
            return None, str(error)
        return outcome, f"{outcome.call} → done: {outcome.done:,} bytes in {outcome.took_ns / 1000:,.1f} µs"

    def _finished(self, outcome: IoctlResult | IoctlError | None, text: str) -> None:
        self._sending = False
        self.status.text, self.result = text, outcome

    # --- without a live kernel

    def sheet(self) -> Sheet:
        """Return the form, the call as C and as Python, and the result, as plain text."""
        name = self.ioctl.value
        rows = [("ioctl", self._named(name))]
        if not self.pages.disabled:
            rows.append(("pages", self.pages.value))
        rows += [("mode, set" if box.value else "mode, not set", box.description) for box in self.modes.children]
        rows += [(each.description, each.value) for each in self.more.children]
        if self.status.text:
            rows.append(("result", self.status.text))
        return Sheet(name, tuple(rows), (("as C", self.c.text), ("as Python", self.python.text)))


def _range(text: str, pages: int) -> tuple[int, int]:
    found = re.fullmatch(r"\s*(\d+)\s*(?:[-–]\s*(\d+))?\s*", text)
    if not found:
        raise UsageError(f"pages {text!r} cannot be read; write one page as 3, several as 8-11")
    first, last = int(found[1]), int(found[2] or found[1])
    if last < first:
        raise UsageError(f"pages {text!r}: the last page is before the first")
    if last >= pages:
        raise UsageError(f"pages {text!r}: the region has pages 0 to {pages - 1}")
    return first, last - first + 1


def _number(name: str, text: str) -> int:
    try:
        value = int(text or "0", 0)
    except ValueError:
        raise UsageError(f"{name} {text!r} is not a number; write it as 0x3 or 3") from None
    if not 0 <= value < 1 << 64:
        raise UsageError(f"{name} {text!r} does not fit into 64 bits")
    return value
