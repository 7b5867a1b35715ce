"""Show the progress of a fetch or a build: a bar on a terminal and in a notebook, lines of text elsewhere."""

from __future__ import annotations

import contextlib
import html
import sys
import time
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import TextIO

    from rich.console import Console
    from rich.progress import Progress as _RichBars
    from rich.progress import TaskID

_LINE_EVERY = 10.0  # s; a log of an unattended run stays readable
_PAGE_EVERY = 0.25  # s; each message to a notebook page costs time


class Progress(Protocol):
    """What a fetch or a build calls while it runs. Nothing is called if the kernel is in the cache."""

    def start(self, kernel: str, text: str) -> None:
        """Begin the work on `kernel`. `text` describes it."""

    def stage(self, text: str, total: int = 0, unit: str = "") -> None:
        """Begin a part of the work. `total` is its size in `unit` ("bytes", "files", …), 0 if unknown."""

    def at(self, done: int) -> None:
        """Report how much of the part is done, in its unit."""

    def finish(self, text: str) -> None:
        """Report that all parts are done. `text` describes the result."""

    def close(self) -> None:
        """Remove the bar, also after an error. It may be called twice."""


def automatic() -> Progress:
    """Return the Progress that fits where the output goes: a notebook, a terminal, or a log."""
    shell = sys.modules.get("IPython") and sys.modules["IPython"].get_ipython()
    if shell and getattr(shell, "kernel", None) is not None:
        return NotebookProgress()
    if sys.stderr.isatty():
        return TerminalProgress()
    return LineProgress(sys.stderr)


@contextlib.contextmanager
def shown(subject: str, text: str) -> Iterator[Progress]:
    """Yield a Progress that is started, and closed at the end."""
    progress = automatic()
    try:
        progress.start(subject, text)
        yield progress
    finally:
        progress.close()


class Silent:
    """Show nothing."""

    def start(self, kernel: str, text: str) -> None:
        """Do nothing."""

    def stage(self, text: str, total: int = 0, unit: str = "") -> None:
        """Do nothing."""

    def at(self, done: int) -> None:
        """Do nothing."""

    def finish(self, text: str) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


class LineProgress:
    """Print lines of text: one at the start, one at the end, and between them at most one every ten seconds."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._kernel = ""
        self._part = _Part("", 0, "")
        self._last = 0.0

    def start(self, kernel: str, text: str) -> None:
        """Begin the work on a kernel."""
        self._kernel = kernel
        self._print(text)

    def stage(self, text: str, total: int = 0, unit: str = "") -> None:
        """Begin a part of the work."""
        self._part = _Part(text, total, unit)
        self._perhaps()

    def at(self, done: int) -> None:
        """Show how much of the part is done."""
        self._part.done = done
        self._perhaps()

    def finish(self, text: str) -> None:
        """Show that all parts are done."""
        self._print(text)

    def close(self) -> None:
        """Do nothing: no bar is open."""

    def _perhaps(self) -> None:
        if time.monotonic() - self._last >= _LINE_EVERY:
            self._print(str(self._part))

    def _print(self, text: str) -> None:
        self._last = time.monotonic()
        print(f"{self._kernel}: {text}", file=self._stream, flush=True)


class TerminalProgress:
    """Show one bar for each part on stderr, with rich."""

    def __init__(self, console: Console | None = None) -> None:
        if console is None:
            from rich.console import Console  # noqa: PLC0415 - rich takes 50 ms, and few starts show a bar

            console = Console(stderr=True)
        self._console = console
        self._bars: _RichBars | None = None
        self._task: TaskID | None = None
        self._part = _Part("", 0, "")
        self._kernel = ""

    def start(self, kernel: str, text: str) -> None:
        """Begin the work on a kernel."""
        from rich.progress import (  # noqa: PLC0415 - as above
            BarColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        self._kernel = kernel
        self._console.print(f"{kernel}: {text}", highlight=False, markup=False)
        self._bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.fields[counted]}", markup=False),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
        )
        self._bars.start()

    def stage(self, text: str, total: int = 0, unit: str = "") -> None:
        """Begin a part of the work."""
        if self._bars is None:
            return
        if self._task is not None:
            self._bars.remove_task(self._task)
        self._part = _Part(text, total, unit)
        self._task = self._bars.add_task(text, total=total or None, counted="")

    def at(self, done: int) -> None:
        """Show how much of the part is done."""
        self._part.done = done
        if self._bars is not None and self._task is not None:
            self._bars.update(self._task, completed=done, counted=self._part.counted)

    def finish(self, text: str) -> None:
        """Show that all parts are done."""
        self.close()
        self._console.print(f"{self._kernel}: {text}", highlight=False, markup=False)

    def close(self) -> None:
        """Remove the bars."""
        if self._bars is not None:
            self._bars.stop()
            self._bars = self._task = None


class NotebookProgress:
    """Show one HTML bar under the cell.

    At the end a line of text replaces it, so that a saved notebook is readable without a running kernel.
    """

    def __init__(self) -> None:
        self._handle: Any = None
        self._part = _Part("", 0, "")
        self._kernel = ""
        self._last = 0.0

    def start(self, kernel: str, text: str) -> None:
        """Begin the work on a kernel."""
        from IPython.display import display  # noqa: PLC0415 - only there in a notebook

        self._kernel = kernel
        page = self._page(text, "")
        self._handle = display(page, raw=True, display_id=True)  # type: ignore[no-untyped-call]

    def stage(self, text: str, total: int = 0, unit: str = "") -> None:
        """Begin a part of the work."""
        self._part = _Part(text, total, unit)
        self._show()

    def at(self, done: int) -> None:
        """Show how much of the part is done."""
        self._part.done = done
        if time.monotonic() - self._last >= _PAGE_EVERY:
            self._show()

    def finish(self, text: str) -> None:
        """Show that all parts are done."""
        self._update(text, "")

    def close(self) -> None:
        """Remove the bar."""
        self._handle = None

    def _show(self) -> None:
        self._last = time.monotonic()
        part = self._part
        level = f' value="{min(part.done, part.total)}" max="{part.total}"' if part.total else ""
        self._update(
            str(part), f'<progress aria-label="{html.escape(part.text)}"{level} style="width:24em"></progress> '
        )

    def _update(self, text: str, bar: str) -> None:
        if self._handle is not None:
            self._handle.update(self._page(text, bar), raw=True)

    def _page(self, text: str, bar: str) -> dict[str, str]:
        return {
            "text/html": f"<div>{bar}<b>{html.escape(self._kernel)}</b>: {html.escape(text)}</div>",
            "text/plain": f"{self._kernel}: {text}",
        }


class _Part:
    # One part of the work, and its text.

    def __init__(self, text: str, total: int, unit: str) -> None:
        self.text = text
        self.total = total
        self.unit = unit
        self.done = 0

    @property
    def counted(self) -> str:
        if self.unit == "bytes":
            done, total, unit = f"{self.done / 1e6:.0f}", f"{self.total / 1e6:.0f}", "MB"
        else:
            done, total, unit = str(self.done), str(self.total), self.unit
        if not self.total:
            return f"{done} {unit}" if self.done else ""
        return f"{done}/{total} {unit}".rstrip()

    def __str__(self) -> str:
        share = f" ({min(99, 100 * self.done // self.total)} %)" if self.total and self.done < self.total else ""
        return " ".join(filter(None, (self.text, self.counted))) + share
