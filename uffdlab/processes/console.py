"""What the guest said on its serial console: bounded, and safe to print."""

from __future__ import annotations

import re
import threading
from typing import Any

from uffdlab import errors

_HEAD = 64 << 10  # bytes kept of the beginning
_TAIL = 960 << 10  # bytes kept of the end
# As the kernel says them; a line is enough, the tail shows the rest.  The last one is __die_header() of x86, which says
# "Oops" for all of them from 6.9 on only.
_PANIC = re.compile(
    r"Kernel panic - not syncing.*|\bOops: .*|\bBUG: .*|general protection fault.*|kernel BUG at .*"
    r"|\b[a-z][a-z0-9 ]*: [0-9a-f]{4} \[#\d+\].*",
    re.IGNORECASE,
)
_UNPRINTABLE = dict.fromkeys((*range(9), *range(11, 32), *range(127, 160)), "�")
_UNPRINTABLE[ord("\r")] = ""


class Log(str):
    """What a console has said until a moment: a string that can be searched and reads well in a notebook."""

    __slots__ = ()

    def search(self, pattern: str) -> Log:
        """Return the lines in which a regular expression is found, whatever the case.

        Raises
        ------
        UsageError
            It is no regular expression.
        """
        try:
            wanted = re.compile(pattern, re.IGNORECASE)
        except re.error as error:
            raise errors.UsageError(f"{pattern!r} is no regular expression: {error}") from error
        return Log("\n".join(line for line in self.splitlines() if wanted.search(line)))

    def tail(self, lines: int = 30) -> Log:
        """Return the last lines that are not blank."""
        kept = [line for line in self.splitlines() if line.strip()]
        return Log("\n".join(kept[-lines:]))

    def _repr_pretty_(self, printer: Any, _cycle: bool) -> None:
        # IPython shows it as lines.
        printer.text(str(self))


class Console:
    """The first 64 KiB and the last 960 KiB of a console; any thread may feed or read it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._head = bytearray()
        self._tail = bytearray()
        self._dropped = 0

    def feed(self, data: bytes) -> None:
        """Take what the guest just wrote."""
        with self._lock:
            room = max(0, _HEAD - len(self._head))
            self._head += data[:room]
            self._tail += data[room:]
            if len(self._tail) > 2 * _TAIL:
                self._trim()

    def _trim(self) -> None:
        excess = len(self._tail) - _TAIL
        if excess > 0:
            self._dropped += excess
            del self._tail[:excess]

    def text(self) -> str:
        """Return all that is kept, without control characters other than newline and tab."""
        with self._lock:
            self._trim()
            head, tail, dropped = bytes(self._head), bytes(self._tail), self._dropped
        between = f"\n… {dropped} bytes left out …\n".encode() if dropped else b""
        return (head + between + tail).decode(errors="replace").translate(_UNPRINTABLE)

    def tail(self, lines: int = 30) -> str:
        """Return the last lines that are not blank."""
        kept = [line for line in self.text()[-(lines * 400) :].splitlines() if line.strip()]
        return "\n".join(kept[-lines:])

    def crash(self, lines: int = 80) -> str:
        """Return what was said from ten lines before the kernel's first complaint on, at most so many lines."""
        text = self.text()
        first = _PANIC.search(text)
        if first is None:
            return self.tail()
        before = [line for line in text[: first.start()].split("\n")[:-1] if line.strip()]
        start = text.rfind("\n", 0, first.start()) + 1
        after = [line for line in text[start:].splitlines() if line.strip()]
        return "\n".join([*before[-10:], *after][:lines])

    def panic(self) -> str:
        """Return the line in which the kernel panicked, and that of its first oops; empty if it did neither."""
        found = [match.group().strip() for match in _PANIC.finditer(self.text())]
        panics = [line for line in found if line.lower().startswith("kernel panic")]
        if panics and found[0] != panics[0]:
            return f"{panics[0]}, after {found[0]}"
        return (found or [""])[0]
