"""Make patches for a tree out of a mail: as they are where they apply, else fitted hunk by hunk."""

from __future__ import annotations

import difflib
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from uffdlab.errors import PatchError
from uffdlab.kernels import mail
from uffdlab.kernels.fit import Placement, fit
from uffdlab.kernels.process import ChildTimeout, run
from uffdlab.kernels.tree import touched_paths

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from uffdlab.kernels.mail import FileDiff, Message

    Files = dict[PurePosixPath, bytes | None]

_PATCH_DEADLINE = 60.0  # s
_WORDS_OF_NAME = 52  # letters, as git format-patch has it


@dataclass(frozen=True)
class Report:
    """What became of one hunk, and of which file it is."""

    path: PurePosixPath
    placement: Placement

    def __str__(self) -> str:
        said = self.placement
        where = f"{self.path}:{said.line}" if said.line else str(self.path)
        why = f": {said.why}" if said.why else ""
        return f"mail line {said.hunk.line:>4}  {said.verdict:<8}  {where}{why}"


@dataclass(frozen=True)
class Fitted:
    """A patch that applies.

    Attributes
    ----------
    title : str
        Its subject without what is in brackets.
    name : str
        A name for its file.
    text : bytes
    reports : tuple of Report
        One for each hunk; none where the mail's own text applies.
    """

    title: str
    name: str
    text: bytes
    reports: tuple[Report, ...]

    @property
    def unplaced(self) -> int:
        """The hunks that are not in it."""
        return sum(report.placement.verdict == "unplaced" for report in self.reports)


def patches_of(data: bytes, name: str, read: Callable[[Iterable[PurePosixPath]], Files]) -> list[Fitted]:
    """Fit every patch of a mail, an mbox or an archive's page to a tree, one on the other.

    Parameters
    ----------
    data : bytes
        The mail.
    name : str
        What to call it in messages.
    read : callable
        Gives files of the tree by their paths, None for one that is not there.

    Raises
    ------
    PatchError
        It holds no patch, one that names files outside the tree, or one of which no hunk has a place there.
    """
    messages = mail.read(data, name)
    paths = {path for message in messages for diff in message.files for path in _paths(diff, name)}
    files = read(sorted(paths))
    made = []
    for number, message in enumerate(messages, 1):
        title = re.sub(r"\[[^\]]*\]\s*|(?:Re|RE): *", "", message.subject).strip()
        words = re.sub(r"[^A-Za-z0-9_.]+", "-", title).strip("-.")
        file_name = f"{number:04}-{words[:_WORDS_OF_NAME].strip('-.') or 'patch'}.patch"
        text = _as_it_is(message, files)
        reports: list[Report] = []
        if text is None:
            text, reports = _fitted(message, files, name)
        made.append(Fitted(title, file_name, text, tuple(reports)))
    return made


def _paths(diff: FileDiff, name: str) -> Iterator[PurePosixPath]:
    for text in {diff.old, diff.new} - {None}:
        path = PurePosixPath(text or "")
        if not path.parts or path.is_absolute() or ".." in path.parts:
            raise PatchError(
                f"{name} touches {text!r}, which is not a path inside the tree like a/mm/userfaultfd.c", patch=name
            )
        yield path


def _as_it_is(message: Message, files: Files) -> bytes | None:
    # The mail's own text if patch(1) takes it without fuzz; `files` are changed then.
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
            except ChildTimeout:
                return None
        if status:
            return None
        files.update({path: _content(tree / path) for path in touched})
    return text


def _content(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


def _fitted(message: Message, files: Files, name: str) -> tuple[bytes, list[Report]]:
    reports: list[Report] = []
    diffs = []
    for diff in message.files:
        new = PurePosixPath(diff.new or diff.old or "")
        old = PurePosixPath(diff.old or diff.new or "")
        before = files[old]
        if before is None and diff.old is not None:
            reports += [Report(new, Placement(hunk, "unplaced", 0, f"the tree has no {old}")) for hunk in diff.hunks]
            continue
        text = (before or b"").decode("utf-8", "surrogateescape")
        whole = text.endswith("\n") or not text
        lines, placements = fit(text.removesuffix("\n").split("\n") if text else [], diff.hunks)
        reports += [Report(new, placement) for placement in placements]
        after = "\n".join(lines) + ("\n" if whole and lines else "")
        if after != text:
            files[old] = None if diff.new is None or old != new else files[old]
            files[new] = None if diff.new is None else after.encode("utf-8", "surrogateescape")
            diffs.append(_diff(old, new, text, after, exists=before is not None, stays=diff.new is not None))
    if not diffs:
        raise PatchError(
            f"no hunk of {name} has a place in this tree:\n" + "\n".join(map(str, reports)) + "\n"
            "Is it a patch for another tree, or in this one already? Choose the kernel it was made for with --on",
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
    body = difflib.unified_diff(
        _lines(before),
        _lines(after),
        f"a/{old}" if exists else "/dev/null",
        f"b/{new}" if stays else "/dev/null",
    )
    ended = [line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in body]
    return "\n".join(head) + "\n" + "".join(ended)


def _lines(text: str) -> list[str]:
    return [line for line in re.split(r"(?<=\n)", text) if line]
