"""Find the patches in a mail, an mbox or a page copied from an archive."""

from __future__ import annotations

import codecs
import email
import email.policy
import html
import re
import zlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from uffdlab.errors import PatchError
from uffdlab.kernels.patches import hunks

if TYPE_CHECKING:
    from collections.abc import Iterator
    from email.message import EmailMessage

    from uffdlab.kernels.patches.hunks import FileDiff

SIZE = 64 << 20  # bytes; a mail with a patch is far smaller
_MOST = 1000  # patches
_SUBJECT = re.compile(rf"{hunks.MARK}*(?:Re: *|Subject: *)*(\[[^\]]{{0,200}}PATCH[^\]]{{0,200}}\] *.+)")
_NUMBER = re.compile(r"\b(\d{1,6})/(\d{1,6})\b")
_VERSION = re.compile(r"\b[vV](\d{1,6})\b")
_MBOX = re.compile(rb"^From \S.*\d{4}(?: [+-]\d{4})?\r?$", re.MULTILINE)
_GZIP = b"\x1f\x8b"
_PAGE = re.compile(r"(?i)\s*<(?:pre|html|!doctype|body|div|p|br|table|head|\?xml)\b")
_ESCAPED = re.compile(r"^(?:&gt; ?)+(?:diff --git |@@ -\d)", re.MULTILINE)
_PLAIN = {"text/plain", "text/x-patch", "text/x-diff"}
_SUFFIXES = (".patch", ".diff")


@dataclass(frozen=True)
class Mail:
    """One mail with a patch.

    Attributes
    ----------
    subject, text : str
    depth : int
        How many levels deep the patch is quoted in the text.
    files : tuple of FileDiff
    """

    subject: str
    text: str
    depth: int
    files: tuple[FileDiff, ...]

    @property
    def change(self) -> list[object]:
        """The changes that it makes, without their lines in the mail."""
        return [(each.old, each.new, [(hunk.start, hunk.lines) for hunk in each.hunks]) for each in self.files]

    @property
    def tag(self) -> str:
        """The text in the subject's brackets: ``PATCH v2 1/3``."""
        found = re.search(r"\[([^\]]*PATCH[^\]]*)\]", self.subject)
        return found[1] if found else ""

    @property
    def version(self) -> int:
        """The version of the series; 1 if the subject does not say."""
        found = _VERSION.search(self.tag)
        return int(found[1]) if found else 1

    @property
    def place(self) -> tuple[int, int]:
        """The patch's number in its series, and the length of the series; (0, 0) for a single patch."""
        found = _NUMBER.search(self.tag)
        return (int(found[1]), int(found[2])) if found else (0, 0)


@dataclass(frozen=True)
class Mailbox:
    """The patches in a mail or an mbox.

    Attributes
    ----------
    messages : tuple of Mail
        The messages with patches to apply, in their order.
    notes : tuple of str
        Messages that were left out, and parts of a series that are missing.
    """

    messages: tuple[Mail, ...]
    notes: tuple[str, ...]


def read(data: bytes, name: str) -> Mailbox:
    """Return the messages that contain a patch.

    In a thread these are the patches of the newest version, not the answers that quote them.

    Raises
    ------
    PatchError
        There is no patch, or there are more than 1000, or `data` is too long or damaged.
    """
    if data.startswith(_GZIP):
        data = _unzipped(data, name)
    if len(data) > SIZE:
        raise PatchError(f"{name} has more than {SIZE} bytes: give the mail alone", patch=name)
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        data = data.decode("utf-16", "replace").encode()
    found = list(_messages(data.removeprefix(codecs.BOM_UTF8)))
    if not any(message.files for message in found):
        what = "a patch without hunks" if found else "no patch"
        raise PatchError(
            f"{name} contains {what}: no `diff --git a/… b/…` or `--- a/…` with hunks `@@ -1,2 +3,4 @@` was found, "
            "quoted or not. Give the mail with the patch itself, not its cover letter",
            patch=name,
        )
    found = [message for message in found if message.files]
    if len(found) > _MOST:
        raise PatchError(f"{name} contains {len(found)} patches: give at most {_MOST}, those of one series", patch=name)
    return _chosen(found)


def _chosen(found: list[Mail]) -> Mailbox:
    notes = []
    taken: list[Mail] = []
    newest = max(message.version for message in found if message.depth == min(each.depth for each in found))
    for message in found:
        title = message.subject or "a mail without a subject"
        if message.depth > min(each.depth for each in found):
            notes.append(f"left out, it quotes a patch: {title}")
        elif message.version < newest:
            notes.append(f"left out, version {newest} is newer: {title}")
        elif any(message.change == each.change for each in taken):
            notes.append(f"left out, it occurs twice: {title}")
        else:
            taken.append(message)
    whole = max(message.place[1] for message in taken)
    have = {message.place[0] for message in taken}
    if missing := [f"{number}/{whole}" for number in range(1, min(whole, 1000) + 1) if number not in have]:
        notes.append(f"missing from the series: {', '.join(missing)}")
    return Mailbox(tuple(sorted(taken, key=lambda message: message.place[0])), tuple(notes))


def _messages(data: bytes) -> Iterator[Mail]:
    # Yields every message that may contain a patch.
    starts = [match.start() for match in _MBOX.finditer(data)]
    if not starts or starts[0] != 0:
        starts = [0]
    for start, end in zip(starts, [*starts[1:], len(data)], strict=True):
        one = data[start:end]
        before = data.count(b"\n", 0, start)
        if one.startswith(b"From "):
            one, before = one.partition(b"\n")[2], before + 1
        head = re.split(rb"\r?\n\r?\n", one[: 1 << 20], maxsplit=1)[0]
        if re.search(rb"(?im)^from:", head) and re.search(rb"(?im)^subject:", head):
            yield from _of_mail(one, before)
        else:
            yield from _of_text(_page(_decoded(one)), before)


def _of_mail(data: bytes, before: int) -> Iterator[Mail]:
    mail = email.message_from_bytes(data, policy=email.policy.default)
    subject = " ".join(str(mail["subject"] or "").split())
    raw = _decoded(data)
    parts = list(mail.walk())
    found: list[Mail] = []
    for part in parts:
        if part.get_content_type() in _PLAIN or (part.get_filename() or "").lower().endswith(_SUFFIXES):
            text = _content(part)
            if hunks.depth(text) is not None:
                at = raw.find(text[:200])  # not found if it was encoded: then lines count from the text's first
                found += _of_text(text, before + raw.count("\n", 0, at) if at >= 0 else 0)
    for part in parts if not found else ():
        if part.get_content_type() == "text/html":
            found += _of_text(_page(_content(part)), 0)
    for message in found:
        yield replace(message, subject=subject)


def _of_text(text: str, before: int) -> Iterator[Mail]:
    depth = hunks.depth(text)
    if depth is not None:
        found = next(filter(None, map(_SUBJECT.match, text.split("\n"))), None)
        yield Mail(found[1].strip() if found else "", text, depth, tuple(hunks.file_diffs(text, depth, before)))


def _content(part: EmailMessage) -> str:
    data = part.get_payload(decode=True)
    if not isinstance(data, bytes):
        return ""
    try:
        text = data.decode(part.get_content_charset("utf-8"))
    except (LookupError, UnicodeDecodeError):
        return _decoded(data)
    return _plain(text)


def _decoded(data: bytes) -> str:
    # Bytes that are not UTF-8 are kept: the tree's file may have the same bytes.
    return _plain(data.decode("utf-8", "surrogateescape"))


def _plain(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\xa0", " ")


def _page(text: str) -> str:
    # Removes the tags from an archive's HTML page and decodes its entities.
    if _PAGE.match(text):
        if not re.search(r"(?i)<pre\b", text):
            text = re.sub(r"(?i)<br\b[^<>]*>\n?", "\n", text)
        return html.unescape(re.sub(r"<[a-zA-Z/!][^<>]*>", "", text)).replace("\xa0", " ")
    return html.unescape(text) if _ESCAPED.search(text) else text


def _unzipped(data: bytes, name: str) -> bytes:
    try:
        return zlib.decompressobj(wbits=31).decompress(data, SIZE + 1)
    except zlib.error as error:
        raise PatchError(f"{name} is damaged gzip ({error}): fetch it again", patch=name) from error
