"""The output of a guest's serial console. Its size is bounded, and it is safe to print."""

from __future__ import annotations

import re
import threading
from typing import Any

from uffdlab import errors

_HEAD = 64 << 10  # bytes kept of the beginning
_TAIL = 960 << 10  # bytes kept of the end
# The kernel's messages for a panic or an oops. The last one is from __die_header() of x86, which prints "Oops" for all
# of them only from 6.9 on.
_PANIC = re.compile(
    r"Kernel panic - not syncing.*|\bOops: .*|\bBUG: .*|general protection fault.*|kernel BUG at .*"
    r"|\b[a-z][a-z0-9 ]*: [0-9a-f]{4} \[#\d+\].*",
    re.IGNORECASE,
)
_UNPRINTABLE = dict.fromkeys((*range(9), *range(11, 32), *range(127, 160)), "�")
_UNPRINTABLE[ord("\r")] = ""


class Log(str):
    """The output of a console up to one moment: a string with a search, which a notebook shows as lines."""

    __slots__ = ()

    def search(self, pattern: str) -> Log:
        """Return the lines that match a regular expression, without regard to case.

        Raises
        ------
        UsageError
            `pattern` is not a regular expression.
        """
        try:
            wanted = re.compile(pattern, re.IGNORECASE)
        except re.error as error:
            raise errors.UsageError(f"{pattern!r} is not a regular expression: {error}") from error
        return Log("\n".join(line for line in self.splitlines() if wanted.search(line)))

    def tail(self, lines: int = 30) -> Log:
        """Return the last lines that are not blank."""
        kept = [line for line in self.splitlines() if line.strip()]
        return Log("\n".join(kept[-lines:]))

    def _repr_pretty_(self, printer: Any, _cycle: bool) -> None:
        # IPython shows it as lines.
        printer.text(str(self))


class Console:
    """Keeps the first 64 KiB and the last 960 KiB of a console's output. Any thread may write or read it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._head = bytearray()
        self._tail = bytearray()
        self._dropped = 0

    def feed(self, data: bytes) -> None:
        """Add output of the guest."""
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
        """Return the output that is kept, without control characters other than newline and tab."""
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
        """Return at most `lines` lines, from ten lines before the first panic or oops; without one, the last lines."""
        text = self.text()
        first = _PANIC.search(text)
        if first is None:
            return self.tail()
        before = [line for line in text[: first.start()].split("\n")[:-1] if line.strip()]
        start = text.rfind("\n", 0, first.start()) + 1
        after = [line for line in text[start:].splitlines() if line.strip()]
        return "\n".join([*before[-10:], *after][:lines])

    def panic(self) -> str:
        """Return the lines of the kernel's panic and first oops, or an empty string if there was neither."""
        found = [match.group().strip() for match in _PANIC.finditer(self.text())]
        panics = [line for line in found if line.lower().startswith("kernel panic")]
        if panics and found[0] != panics[0]:
            return f"{panics[0]}, after {found[0]}"
        return (found or [""])[0]
