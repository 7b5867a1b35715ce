"""Make patches for a tree from a mail: unchanged if they apply, or else fitted hunk by hunk."""

from __future__ import annotations

import difflib
import re
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from uffdlab.errors import PatchError
from uffdlab.kernels.patches import mail
from uffdlab.kernels.patches.fit import DEADLINE, Placement, fit
from uffdlab.kernels.patches.hunks import Hunk
from uffdlab.kernels.tree import is_inside, touched_paths
from uffdlab.processes.job import JobTimeout, run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from uffdlab.kernels.patches.hunks import FileDiff
    from uffdlab.kernels.patches.mail import Mail

    Files = dict[PurePosixPath, bytes | None]

_PATCH_DEADLINE = 60.0  # s
_LONGEST_FILE_NAME = 52  # characters of the title in it, as in git format-patch
_LONGEST_TITLE = 120  # characters
_MOST_LISTED = 500  # hunks


@dataclass(frozen=True)
class Report:
    """The placement of one hunk, and the path of its file."""

    path: PurePosixPath
    placement: Placement

    def __str__(self) -> str:
        placement = self.placement
        where = f"{self.path}:{placement.line}" if placement.line else str(self.path)
        why = f": {placement.why}" if placement.why else ""
        return f"mail line {placement.hunk.line:>4}  {placement.outcome:<8}  {where}{why}"


@dataclass(frozen=True)
class Fitted:
    """A patch that applies.

    Attributes
    ----------
    title : str
        The subject without the parts in brackets.
    name : str
        A name for the patch file.
    text : bytes
        The content of the patch file.
    reports : tuple of Report
        One for each hunk; empty if the mail's own text applies.
    """

    title: str
    name: str
    text: bytes
    reports: tuple[Report, ...]

    @property
    def unplaced(self) -> int:
        """The number of hunks that have no place and were left out."""
        return sum(report.placement.outcome == "unplaced" for report in self.reports)


@dataclass(frozen=True)
class Port:
    """The patches from a mail.

    Attributes
    ----------
    patches : tuple of Fitted
        In the order in which they apply.
    notes : tuple of str
        Messages that were left out, and parts of a series that are missing.
    """

    patches: tuple[Fitted, ...]
    notes: tuple[str, ...]

    def __str__(self) -> str:
        lines = list(self.notes)
        for patch in self.patches:
            lines.append(f"{patch.name}: " + ("fitted" if patch.reports else "applies as it is"))
            lines += [f"  {line}" for line in _listed(patch.reports).split("\n") if line]
        outcomes = [report.placement.outcome for patch in self.patches for report in patch.reports]
        if outcomes:
            lines.append(", ".join(f"{outcomes.count(each)} {each}" for each in ("placed", "guessed", "unplaced")))
        return "\n".join(lines)


def patches_of(data: bytes, name: str, read: Callable[[Iterable[PurePosixPath]], Files]) -> Port:
    """Fit all patches of a mail, an mbox or an archive's page to a tree, each on top of those before it.

    Parameters
    ----------
    data : bytes
        The mail, or an mbox, which may be compressed with gzip.
    name : str
        The name of the mail in messages.
    read : callable
        Returns the contents of files by their paths in the tree; None for a missing file.

    Raises
    ------
    PatchError
        There is no patch, a patch names files outside the tree, or no hunk of a patch has a place in the tree.
    """
    box = mail.read(data, name)
    files = read(sorted({path for message in box.messages for diff in message.files for path in _paths(diff, name)}))
    made = []
    until = time.monotonic() + DEADLINE
    for number, message in enumerate(box.messages, 1):
        title = _title(message.subject)
        plain = re.sub(r"[^A-Za-z0-9_.]+", "-", title).strip("-.")
        file_name = f"{number:04}-{plain[:_LONGEST_FILE_NAME].strip('-.') or 'patch'}.patch"
        text = _apply_exactly(message, files)
        reports: list[Report] = []
        if text is None:
            text, reports = _fitted(message, files, name, until)
        made.append(Fitted(title, file_name, text, tuple(reports)))
    return Port(tuple(made), box.notes)


def _title(subject: str) -> str:
    plain = "".join(letter if letter.isprintable() else " " for letter in subject)
    plain = re.sub(r"\[[^\]]*\]\s*|(?:Re|Fwd?|AW): *", "", plain, flags=re.IGNORECASE).strip()
    return plain if len(plain) <= _LONGEST_TITLE else plain[: _LONGEST_TITLE - 1] + "…"


def _paths(diff: FileDiff, name: str) -> Iterator[PurePosixPath]:
    for text in {diff.old, diff.new} - {None}:
        path = PurePosixPath(text or "")
        if not is_inside(path):
            raise PatchError(
                f"{name} touches {text!r}, which is not a path inside the tree like a/mm/userfaultfd.c: make the patch "
                "with `git format-patch`",
                patch=name,
            )
        yield path


def _apply_exactly(message: Mail, files: Files) -> bytes | None:
    # Returns the mail's own text if patch(1) applies it without fuzz, and updates `files`. Otherwise returns None.
    if message.depth:
        return None
    text = f"Subject: {message.subject or '[PATCH]'}\n\n{message.text}".encode("utf-8", "surrogateescape")
    with tempfile.TemporaryDirectory(prefix="uffdlab-am-") as folder:
        tree = Path(folder, "tree")
        patch = Path(folder, "patch")
        patch.write_bytes(text)
        try:
            touched = touched_paths(patch)
        except PatchError:
            return None
        if not touched <= files.keys():
            return None
        tree.mkdir()
        for path in touched:
            if (content := files[path]) is not None:
                (tree / path).parent.mkdir(parents=True, exist_ok=True)
                (tree / path).write_bytes(content)
        command = ["patch", "-p1", "--fuzz=0", "--force", "--no-backup-if-mismatch", "--reject-file=-", "-d", str(tree)]
        with patch.open("rb") as file:
            try:
                status, _ = run(command, deadline=_PATCH_DEADLINE, stdin=file)
            except JobTimeout:
                return None
        if status:
            return None
        files.update({path: _content(tree / path) for path in touched})
    return text


def _content(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


def _fitted(message: Mail, files: Files, name: str, until: float) -> tuple[bytes, list[Report]]:
    reports: list[Report] = []
    diffs = []
    for diff in message.files:
        new = PurePosixPath(diff.new or diff.old or "")
        old = PurePosixPath(diff.old or diff.new or "")
        header = Hunk(diff.line, 0, "", ())
        before = files[old]
        if before is None and diff.old is not None:
            why = f"the tree has no {old}"
            reports += [Report(new, Placement(hunk, "unplaced", 0, why)) for hunk in diff.hunks or (header,)]
            continue
        if diff.unsupported == "binary":
            reports.append(Report(new, Placement(header, "unplaced", 0, "it is binary")))
            continue
        if diff.unsupported == "mode" and not diff.hunks:
            reports.append(Report(new, Placement(header, "guessed", 0, "its mode is left as it is")))
            continue
        text = (before or b"").decode("utf-8", "surrogateescape")
        whole = text.endswith("\n") or not text
        lines, placements = fit(text.removesuffix("\n").split("\n") if text else [], diff.hunks, until)
        reports += [Report(new, placement) for placement in placements]
        after = "\n".join(lines) + ("\n" if whole and lines else "")
        if after != text or old != new:
            files[old] = None if diff.new is None or old != new else files[old]
            files[new] = None if diff.new is None else after.encode("utf-8", "surrogateescape")
            diffs.append(_diff(old, new, text, after, exists=before is not None, stays=diff.new is not None))
        if not diff.hunks:
            reports.append(Report(new, Placement(header, "placed", 0, f"it was {old}")))
    if not diffs:
        raise PatchError(
            f"no hunk of {name} has a place in this tree:\n" + _listed(reports) + "\n"
            "Was it made for another tree, or is it in this one already? Choose the kernel it was made for with --on",
            patch=name,
        )
    notes = "\n".join(f"  {report}" for report in reports)
    subject = message.subject or "[PATCH]"
    head = f"Subject: {subject}\n\nFitted by `uffdlab kernel am` from {Path(name).name}:\n{notes}\n---\n"
    return "".join([head, *diffs]).encode("utf-8", "surrogateescape"), reports


def _diff(old: PurePosixPath, new: PurePosixPath, before: str, after: str, *, exists: bool, stays: bool) -> str:
    head = [f"diff --git a/{old} b/{new}"]
    if not exists:
        head.append("new file mode 100644")
    elif not stays:
        head.append("deleted file mode 100644")
    elif old != new:
        head += [f"rename from {old}", f"rename to {new}"]
    body = difflib.unified_diff(
        _lines(before),
        _lines(after),
        f"a/{old}" if exists else "/dev/null",
        f"b/{new}" if stays else "/dev/null",
    )
    ended = [line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in body]
    return "\n".join(head) + "\n" + "".join(ended)


def _listed(reports: Sequence[Report]) -> str:
    more = len(reports) - _MOST_LISTED
    return "\n".join([*map(str, reports[:_MOST_LISTED]), *([f"… and {more} more hunks"] if more > 0 else [])])


def _lines(text: str) -> list[str]:
    return [line for line in re.split(r"(?<=\n)", text) if line]
