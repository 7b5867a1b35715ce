"""Find the patches in a mail, an mbox or a page copied from an archive, quoted or not."""

from __future__ import annotations

import email
import email.policy
import html
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from uffdlab.errors import PatchError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from email.message import EmailMessage

_MARK = r"(?:> ?)"
_DIFF = re.compile(rf"({_MARK}*)(?:diff --git |@@ -\d)")
_HUNK = re.compile(r"@@ -(\d+)(?:,(\d+))? \+(\d+)(?:,(\d+))? @@ ?(.*)")
_NAME = re.compile(r"(---|\+\+\+) ([^\t]+?)\s*$")
_SUBJECT = re.compile(rf"{_MARK}*(?:Re: *|Subject: *)*(\[[^\]]*PATCH[^\]]*\] *.+)")
_NUMBER = re.compile(r"\[[^\]]*PATCH[^\]]*?\b(\d+)/\d+\s*\]")
_MBOX = re.compile(r"^From \S.*\d{4}(?: [+-]\d{4})?$", re.MULTILINE)
_SIZE = 64 << 20  # bytes; a mail with a patch is far smaller


@dataclass(frozen=True)
class Hunk:
    """A hunk as the mail has it.

    Attributes
    ----------
    line : int
        Where its header is in the mail, from 1.
    start : int
        The first line of it in the old file as the header says, from 1.
    section : str
        What stands behind the header's second ``@@``.
    lines : tuple of (str, str)
        " ", "-" or "+", and the text.
    missing : int
        Lines that the header counts and the mail has not.
    """

    line: int
    start: int
    section: str
    lines: tuple[tuple[str, str], ...]
    missing: int = 0


@dataclass(frozen=True)
class FileDiff:
    """The hunks for one file; `old` is None for a file that the patch adds, `new` for one that it deletes."""

    old: str | None
    new: str | None
    hunks: tuple[Hunk, ...]


@dataclass(frozen=True)
class Message:
    """One mail with a patch: its subject, its text, how deep the patch is quoted in it, and the patch."""

    subject: str
    text: str
    depth: int
    files: tuple[FileDiff, ...]


def read(data: bytes, name: str) -> list[Message]:
    """Give the messages that hold a patch, in the order in which the patches apply.

    Raises
    ------
    PatchError
        There is none.
    """
    if len(data) > _SIZE:
        raise PatchError(f"{name} has {len(data)} bytes, and a mail at most {_SIZE}: give the mail alone", patch=name)
    found = []
    for text, before, subject in _texts(data):
        if first := next(filter(None, map(_DIFF.match, text.split("\n"))), None):
            depth = first[1].count(">")
            files = tuple(_files(text, depth, before))
            if files:
                found.append(Message(subject or _subject(text), text, depth, files))
    if not found:
        raise PatchError(
            f"{name} holds no patch: no `diff --git a/… b/…` or `--- a/…` with hunks `@@ -1,2 +3,4 @@` was found, "
            "quoted or not. Give the mail with the patch itself, not its cover letter",
            patch=name,
        )
    return sorted(found, key=lambda message: _number(message.subject))


def _texts(data: bytes) -> Iterator[tuple[str, int, str]]:
    # Each message's text, the number of lines before it, its subject.
    raw = _decoded(data)
    starts = [match.start() for match in _MBOX.finditer(raw)]
    if not starts or starts[0] != 0:
        starts = [0]
    for start, end in zip(starts, [*starts[1:], len(raw)], strict=True):
        one = raw[start:end]
        head = re.sub(r"\AFrom .*\n", "", one).partition("\n\n")[0]
        if not re.search(r"(?im)^from:", head) or not re.search(r"(?im)^subject:", head):
            yield _page(one), raw.count("\n", 0, start), ""
            continue
        message = email.message_from_string(re.sub(r"\AFrom .*\n", "", one), policy=email.policy.default)
        for part in message.walk():
            if part.get_content_type() in {"text/plain", "text/x-patch", "text/x-diff"}:
                text = _content(part)
                at = one.find(text[:200])  # not there when it was encoded: then lines count from the text's own first
                before = raw.count("\n", 0, start + at) if at >= 0 else 0
                yield text, before, str(message["subject"]).replace("\n", "")


def _content(part: EmailMessage) -> str:
    content = part.get_content()
    text = content if isinstance(content, str) else content.decode("utf-8", "replace")
    return text.replace("\r\n", "\n").replace("\xa0", " ")


def _decoded(data: bytes) -> str:
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        text = data.decode("latin-1")
    return text.replace("\r\n", "\n").replace("\xa0", " ")


def _page(text: str) -> str:
    # The source of an archive's page: tags off, entities back.
    if not re.search(r"(?i)<pre\b|<html\b|<!doctype html", text[:20_000]):
        return text
    return html.unescape(re.sub(r"<[a-zA-Z/!][^<>]*>", "", text)).replace("\xa0", " ")


def _subject(text: str) -> str:
    found = next(filter(None, map(_SUBJECT.match, text.split("\n"))), None)
    return found[1].strip() if found else ""


def _number(subject: str) -> int:
    found = _NUMBER.search(subject)
    return int(found[1]) if found else 0


def _files(text: str, depth: int, before: int) -> Iterator[FileDiff]:
    quoted = re.compile(rf"{_MARK}{{{depth}}}")
    lines: list[tuple[int, str]] = []
    for number, line in enumerate(text.split("\n"), before + 1):
        # What is quoted less deeply is the answer's own words, between the lines.
        if mark := quoted.match(line):
            lines.append((number, line[mark.end() :]))
    names: dict[str, str] = {}
    hunks: list[Hunk] = []
    at = 0
    while at < len(lines):
        number, line = lines[at]
        at += 1
        if match := _HUNK.match(line):
            at, hunk = _hunk(lines, at, number, match)
            hunks.append(hunk)
        elif line.startswith("diff --git ") or (_NAME.match(line) and line.startswith("---")):
            if names and hunks:
                yield _file(names, hunks)
                names, hunks = {}, []
            if words := re.match(r"diff --git (\S+) (\S+)", line):
                names = {"---": words[1], "+++": words[2]}
        if name := _NAME.match(line):
            names[name[1]] = name[2]
    if names and hunks:
        yield _file(names, hunks)


def _file(names: dict[str, str], hunks: list[Hunk]) -> FileDiff:
    def path(mark: str) -> str | None:
        name = names.get(mark, names.get("+++", ""))
        return None if name == "/dev/null" else name.partition("/")[2]

    return FileDiff(path("---"), path("+++"), tuple(hunks))


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
        # A context line that has lost its blank has lost its indentation too.
        body.append((kind, line[1:] if line[:1] in {"-", "+", " "} else line))
        for side in left:
            left[side] -= kind in {side, " "}
    return at, Hunk(number, int(start), section.strip(), tuple(body), max(0, *left.values()))


def _ends(lines: list[tuple[int, str]], at: int) -> bool:
    # The hunk is shorter than its header says: here is the next one, or the mail's signature.
    line = lines[at][1]
    after = lines[at + 1][1] if at + 1 < len(lines) else ""
    return (
        line.startswith("diff --git ")
        or _HUNK.match(line) is not None
        or (line.startswith("--- ") and after.startswith("+++ "))
        or (line.rstrip() == "--" and re.match(r"\d+\.\d+", after) is not None)
    )
