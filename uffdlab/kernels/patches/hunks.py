"""Find the hunks of a patch in a text. The patch may be quoted, incomplete or damaged."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

MARK = r"(?:> ?)"  # one level of quotation
_START = re.compile(rf"({MARK}*)(?:diff --git |@@ -\d)")
_HUNK = re.compile(r"@@ -(\d{1,9})(?:,(\d{1,9}))? \+(\d{1,9})(?:,(\d{1,9}))? @@ ?(.*)")
_NAME = re.compile(r"(---|\+\+\+) ([^\t]+?)\s*$")
_GIT = re.compile(r"diff --git (\S+) (\S+)\s*$")
_RENAME = re.compile(r"rename (from|to) (\S+)\s*$")
_DEV_NULL_SIDE = {"new file": "---", "deleted file": "+++"}  # the side on which the file does not exist
_BINARY = re.compile(r"GIT binary patch|Binary files .* differ")
_MODE = re.compile(r"(old|new|new file|deleted file) mode \d+")


@dataclass(frozen=True)
class Hunk:
    """A hunk as it is in the text.

    Attributes
    ----------
    line : int
        The line of its header in the text, from 1.
    start : int
        Its first line in the old file according to the header, from 1.
    section : str
        The text after the header's second ``@@``.
    lines : tuple of (str, str)
        " ", "-" or "+", and the text of the line.
    missing : int
        How many lines the header counts that the text does not have.
    """

    line: int
    start: int
    section: str
    lines: tuple[tuple[str, str], ...]
    missing: int = 0


@dataclass(frozen=True)
class FileDiff:
    """What a patch does to one file.

    Attributes
    ----------
    old, new : str or None
        Its path before and after; `old` is None for a new file, `new` for a deleted one.
    hunks : tuple of Hunk
        Empty for a file that is binary, or of which only the name or mode changes.
    line : int
        Its first line in the text, from 1.
    unsupported : str
        A change that no hunk contains: ``binary``, ``mode`` or an empty string.
    """

    old: str | None
    new: str | None
    hunks: tuple[Hunk, ...]
    line: int
    unsupported: str = ""


def depth(text: str) -> int | None:
    """Return how many levels deep the first patch in a text is quoted, or None if there is no patch."""
    found = next(filter(None, map(_START.match, text.split("\n"))), None)
    return None if found is None else found[1].count(">")


def file_diffs(text: str, quoted: int = 0, before: int = 0) -> Iterator[FileDiff]:
    """Yield the changes that the text makes to each file.

    Parameters
    ----------
    quoted : int
        How many levels deep the patch is quoted. Lines with fewer levels are an answer to it, and are skipped.
    before : int
        The number of lines before the text, if it is a part of a larger text.
    """
    mark = re.compile(rf"{MARK}{{{quoted}}}")
    lines = [
        (number, line[found.end() :])
        for number, line in enumerate(text.split("\n"), before + 1)
        if (found := mark.match(line))
    ]
    file = _File(0)
    at = 0
    while at < len(lines):
        number, line = lines[at]
        at += 1
        if match := _HUNK.match(line):
            at, hunk = _hunk(lines, at, number, match)
            file.hunks.append(hunk)
        elif line.startswith("diff --git ") or (line.startswith("--- ") and _NAME.match(line) and file.hunks):
            yield from file.done()
            file = _File(number)
            if names := _GIT.match(line):
                file.names = {"---": names[1], "+++": names[2]}
                file.bare = names[1] == names[2]
        file.take(line, number)
    yield from file.done()


class _File:
    # Collects the headers and hunks of one file. `bare` says that its names lack the prefixes a/ and b/.

    def __init__(self, line: int) -> None:
        self.line = line
        self.names: dict[str, str] = {}
        self.hunks: list[Hunk] = []
        self.bare = False
        self._renamed: dict[str, str] = {}
        self._unsupported = ""

    def take(self, line: str, number: int) -> None:
        if name := _NAME.match(line):
            self.names[name[1]] = name[2]
            self.line = self.line or number
        elif renamed := _RENAME.match(line):
            self._renamed[renamed[1]] = renamed[2]
        elif _BINARY.match(line):
            self._unsupported = "binary"
        elif mode := _MODE.match(line):
            self._unsupported = self._unsupported or "mode"
            if mode[1] in _DEV_NULL_SIDE:
                self.names[_DEV_NULL_SIDE[mode[1]]] = "/dev/null"

    def done(self) -> Iterator[FileDiff]:
        if not self.names or not (self.hunks or self._unsupported or len(self._renamed) > 1):
            return
        old = self._renamed.get("from", self._path("---"))
        new = self._renamed.get("to", self._path("+++"))
        yield FileDiff(old, new, tuple(self.hunks), self.line, self._unsupported)

    def _path(self, mark: str) -> str | None:
        name = self.names.get(mark, self.names.get("+++", ""))
        if name == "/dev/null":
            return None
        return name if self.bare else name.partition("/")[2]


def _hunk(lines: list[tuple[int, str]], at: int, number: int, header: re.Match[str]) -> tuple[int, Hunk]:
    start, old, _, new, section = header.groups()
    left = {"-": int(old or 1) if old != "0" else 0, "+": int(new or 1) if new != "0" else 0}
    body: list[tuple[str, str]] = []
    while at < len(lines) and (left["-"] > 0 or left["+"] > 0) and not _ends(lines, at):
        line = lines[at][1]
        at += 1
        if line.startswith("\\ "):
            continue
        kind = line[:1] if line[:1] in {"-", "+"} else " "
        # A context line without its leading blank has also lost its indentation.
        body.append((kind, line[1:] if line[:1] in {"-", "+", " "} else line))
        for side in left:
            left[side] -= kind in {side, " "}
    return at, Hunk(number, int(start), section.strip(), tuple(body), max(0, *left.values()))


def _ends(lines: list[tuple[int, str]], at: int) -> bool:
    # Returns whether the next hunk or the mail's signature starts here: the hunk is shorter than its header says.
    line = lines[at][1]
    after = lines[at + 1][1] if at + 1 < len(lines) else ""
    return (
        line.startswith("diff --git ")
        or _HUNK.match(line) is not None
        or (line.startswith("--- ") and after.startswith("+++ "))
        or (line.rstrip() == "--" and re.match(r"\d+\.\d+", after) is not None)
    )
