"""A kernel source tree that contains one variant (set of patches) at a time.

A switch to another variant writes only the files that differ, so make compiles only what depends on them. Each file is
replaced by a rename, so after a kill at any moment the next switch still works.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from uffdlab.cachedir import discard, write_atomically
from uffdlab.errors import PatchError, SourceError
from uffdlab.kernels import host_checks
from uffdlab.processes.job import JobTimeout, run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from typing import IO

    from uffdlab.kernels.progress import Progress

_UNPACK_DEADLINE = 1800.0  # s
_PATCH_DEADLINE = 60.0  # s
# xz uses several threads if the archive was packed in several blocks
_COMPRESSED = {
    b"\xfd7zXZ": "--use-compress-program=xz -T0",
    b"\x1f\x8b": "--gzip",
    b"BZh": "--bzip2",
    b"\x28\xb5\x2f\xfd": "--zstd",
}
_NAME_MAX = 255  # bytes, the limit of all common file systems
_HUNKS_SHOWN = 4000  # characters
_HUNK = re.compile(r"@@ -\d+(?:,(\d{1,9}))? \+\d+(?:,(\d{1,9}))? @@")
_HEADER = re.compile(r"(?:--- |\+\+\+ |rename from |rename to |copy from |copy to )([^\t\n]+)")


class Tree:
    """The folder of a source: ``source-<id>/``, and the files that a switch to another variant needs.

    Parameters
    ----------
    folder : Path
        The caller holds its lock during every call.
    identity : str
        Hash of the source package.
    inherit : sequence of int
        File descriptors that children inherit, among them the lock.
    objects : str
        Name of the folder of compiled objects.
    """

    def __init__(self, folder: Path, identity: str, inherit: Sequence[int] = (), *, objects: str = "objects") -> None:
        self.folder = folder
        self.source = folder / f"source-{identity[:16]}"
        self.objects = folder / objects
        # The unpatched form of each file that a patch has touched: a copy under `pristine`, or an empty file under
        # `absent` if the source had no such file. A file in neither folder is as it was unpacked.
        self._pristine = folder / "pristine"
        self._absent = folder / "absent"
        self._inherit = tuple(inherit)

    @property
    def unpacked(self) -> bool:
        """Whether the source is completely unpacked."""
        return self.source.is_dir()

    def unpack(self, deb: Path, progress: Progress) -> None:
        """Unpack a linux-source package. First remove everything in the folder, also another version.

        Raises
        ------
        SourceError
            The package contains no source, or cannot be unpacked.
        HostUnsupported
            The disk is full.
        """
        discard(self.folder)
        package = self.folder / "package"
        package.mkdir(parents=True)
        try:
            self._extract(["dpkg-deb", "-x", deb, package], deb)
            tarball = next(package.glob("usr/src/*.tar.*"), None)
            if tarball is None:
                raise SourceError(f"{deb.name} contains no usr/src/*.tar.*: is it a linux-source package?")
            self._unpack(tarball, deb, progress)
        except BaseException:
            discard(self.folder)
            raise
        discard(package)

    def unpack_tarball(self, tarball: Path, check: Callable[[Path], None], progress: Progress) -> None:
        """Unpack a user's tarball. First remove everything in the folder.

        Parameters
        ----------
        check : callable
            Called with the folder of unpacked files; raises an exception to reject them.

        Raises
        ------
        SourceError
            The tarball cannot be unpacked.
        HostUnsupported
            The disk is full.
        """
        discard(self.folder)
        try:
            self._unpack(tarball, tarball, progress, check)
        except BaseException:
            discard(self.folder)
            raise

    def _unpack(
        self, tarball: Path, given: Path, progress: Progress, check: Callable[[Path], None] = lambda _: None
    ) -> None:
        fresh = self.folder / "unpacking"
        fresh.mkdir(parents=True)
        progress.stage("unpacking the source", tarball.stat().st_size, "bytes")
        with tarball.open("rb") as file:
            # tar shares our file offset, so tell() returns how much it has read.
            self._extract(
                ["tar", "-x", "-f", "-", *_decompressor(file), "--strip-components=1", "-C", fresh],
                given,
                stdin=file,
                on_tick=lambda: progress.at(file.tell()),
            )
        check(fresh)
        fresh.rename(self.source)

    def put(self, path: PurePosixPath, data: bytes | None, kind: str = "-") -> None:
        """Replace the unpatched form of a file.

        Parameters
        ----------
        path : PurePosixPath
            Relative to the source.
        data : bytes or None
            The new content; None removes the file.
        kind : str
            ``-`` a file, ``x`` an executable file, ``l`` a symbolic link to the path in `data`.
        """
        pristine, absent = self._pristine / path, self._absent / path
        if data is None and (pristine.exists() or absent.exists()):
            write_atomically(absent, b"")
            pristine.unlink(missing_ok=True)
        elif data is None:
            (self.source / path).unlink(missing_ok=True)
            for folder in (self.source / path).parents:
                if folder == self.source or not folder.is_dir() or any(folder.iterdir()):
                    break
                folder.rmdir()
        elif kind == "l":
            target = self.source / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.unlink(missing_ok=True)
            target.symlink_to(os.fsdecode(data))
        else:
            target = pristine if pristine.exists() or absent.exists() else self.source / path
            if target.is_symlink():
                target.unlink()
            if not target.is_file() or target.read_bytes() != data:
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(data)  # not atomic: a caller that was killed here writes the file again
            target.chmod(0o755 if kind == "x" else 0o644)
            absent.unlink(missing_ok=True)

    def switch_to(self, patches: Sequence[Path], kernel: str) -> None:
        """Change the tree to the unpatched source with `patches` applied in their order.

        Raises
        ------
        PatchError
            A patch does not apply. The tree is unchanged.
        """
        with tempfile.TemporaryDirectory(dir=self.folder, prefix="patching-") as scratch_name:
            scratch = Path(scratch_name)
            touched = self._patched(scratch, patches, kernel)
            for path in touched - set(self._recorded()):
                self._record(path)
            for path in self._recorded():
                wanted = scratch / path if path in touched else self._original(path)
                self._write(path, wanted if wanted is not None and wanted.is_file() else None)

    def read(
        self, patches: Sequence[Path], kernel: str, paths: Iterable[PurePosixPath]
    ) -> dict[PurePosixPath, bytes | None]:
        """Return the contents of files of the unpatched source with `patches` applied; None for a missing file.

        Raises
        ------
        PatchError
            A patch does not apply.
        """
        with tempfile.TemporaryDirectory(dir=self.folder, prefix="patching-") as scratch_name:
            scratch = Path(scratch_name)
            touched = self._patched(scratch, patches, kernel)
            found: dict[PurePosixPath, bytes | None] = {}
            for path in paths:
                file = scratch / path if path in touched else self._original(path)
                found[path] = file.read_bytes() if file is not None and file.is_file() else None
            return found

    def copy(self, patches: Sequence[Path], kernel: str, parts: Iterable[str], into: Path) -> None:
        """Copy files and folders of the unpatched source, with `patches` applied, into the folder `into`.

        Raises
        ------
        PatchError
            A patch does not apply.
        """
        with tempfile.TemporaryDirectory(dir=self.folder, prefix="patching-") as scratch_name:
            scratch = Path(scratch_name)
            touched = self._patched(scratch, patches, kernel)
            for path in self._under(parts) | {path for path in touched if _is_in(path, parts)}:
                file = scratch / path if path in touched else self._original(path)
                if file is not None and (file.is_file() or file.is_symlink()):
                    (into / path).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy2(file, into / path, follow_symlinks=False)

    def _under(self, parts: Iterable[str]) -> set[PurePosixPath]:
        found = set()
        for part in parts:
            for top in (self.source, self._pristine):
                whole = top / part
                files = whole.rglob("*") if whole.is_dir() else [whole]
                found |= {PurePosixPath(file.relative_to(top)) for file in files if file.is_symlink() or file.is_file()}
        return found

    def _patched(self, scratch: Path, patches: Sequence[Path], kernel: str) -> set[PurePosixPath]:
        # Writes every file that the patches touch, patched, to `scratch`, and returns their paths.
        touched: set[PurePosixPath] = set()
        for patch in patches:
            paths = touched_paths(patch, kernel)
            for path in paths - touched:
                original = self._original(path)
                if original is not None:
                    (scratch / path).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy2(original, scratch / path)
            touched |= paths
            self._patch(scratch, patch, kernel)
        return touched

    def _extract(
        self,
        command: list[str | Path],
        deb: Path,
        *,
        stdin: IO[bytes] | None = None,
        on_tick: Callable[[], None] | None = None,
    ) -> None:
        try:
            status, output = run(
                command, deadline=_UNPACK_DEADLINE, inherit=self._inherit, stdin=stdin, on_tick=on_tick
            )
        except JobTimeout:
            status, output = 1, f"not finished after {_UNPACK_DEADLINE:.0f} s"
        if "No space left on device" in output:
            raise host_checks.disk_full(self.folder, f"unpacking {deb.name}")
        if status:
            raise SourceError(f"{deb.name} cannot be unpacked: {command[0]} ended with {status}: {output.strip()}")

    def _patch(self, scratch: Path, patch: Path, kernel: str) -> None:
        # No fuzz: the lab tests the patch as it was written, not a guess where it belongs.
        rejected = self.folder / "rejected"
        command = ["patch", "-p1", "--fuzz=0", "--force", "--no-backup-if-mismatch", f"--reject-file={rejected}"]
        with patch.open("rb") as file:
            try:
                status, output = run(
                    [*command, "-d", scratch], deadline=_PATCH_DEADLINE, stdin=file, inherit=self._inherit
                )
            except JobTimeout:
                status, output = 1, f"not finished after {_PATCH_DEADLINE:.0f} s"
        hunks = rejected.read_text(errors="replace") if rejected.exists() else ""
        rejected.unlink(missing_ok=True)
        if status:
            output = f"{output.strip()}\n{hunks[:_HUNKS_SHOWN]}".strip()
            raise PatchError(
                f"{kernel}: {patch} does not apply to {self.source.name}. patch -p1 --fuzz=0 printed:\n{output}\n"
                "Update the patch for this source, or in kernels.toml choose the source that it was made for",
                kernel=kernel,
                patch=str(patch),
                output=output,
            )

    def _recorded(self) -> list[PurePosixPath]:
        return [
            PurePosixPath(path.relative_to(top))
            for top in (self._pristine, self._absent)
            for path in sorted(top.rglob("*"))
            if path.is_file() and not path.name.startswith(".")
        ]

    def _original(self, path: PurePosixPath) -> Path | None:
        # Returns the path of the unpatched file, or None if the source has no such file.
        for candidate in (self._pristine / path, None if (self._absent / path).exists() else self.source / path):
            if candidate is not None and (candidate.is_file() or candidate.is_symlink()):
                return candidate
        return None

    def _record(self, path: PurePosixPath) -> None:
        original = self.source / path
        if original.is_file():
            write_atomically(self._pristine / path, original.read_bytes())
        else:
            write_atomically(self._absent / path, b"")

    def _write(self, path: PurePosixPath, wanted: Path | None) -> None:
        target = self.source / path
        if wanted is None:
            target.unlink(missing_ok=True)
        elif not target.is_file() or target.read_bytes() != wanted.read_bytes():
            mode = wanted.stat().st_mode if not target.exists() else target.stat().st_mode
            write_atomically(target, wanted.read_bytes())
            target.chmod(mode & 0o777)


def touched_paths(patch: Path, kernel: str = "", text: bytes | None = None) -> set[PurePosixPath]:
    """Return the files that a patch reads or writes, without the first folder of their paths (patch -p1).

    Parameters
    ----------
    text : bytes, optional
        The content of the patch; by default that of the file.

    Raises
    ------
    PatchError
        The patch touches no file, or a file outside the tree.
    """
    paths = set()
    for name in _names(patch.read_bytes() if text is None else text):
        inside = PurePosixPath(*PurePosixPath(name).parts[1:])
        if name.startswith("/") or not is_inside(inside):
            raise PatchError(
                f"{kernel}: {patch} touches {name}, which is not a path inside the tree like a/mm/userfaultfd.c: "
                "make the patch with `git format-patch` or `diff -u a/… b/…`",
                kernel=kernel,
                patch=str(patch),
            )
        paths.add(inside)
    if not paths:
        raise PatchError(
            f"{kernel}: {patch} has no hunks that patch(1) can apply: make it with `git format-patch`",
            kernel=kernel,
            patch=str(patch),
        )
    return paths


def is_inside(path: PurePosixPath) -> bool:
    """Return whether `path` can be the path of a file inside a tree."""
    return (
        bool(path.parts)
        and not path.is_absolute()
        and all(part != ".." and "\0" not in part and len(os.fsencode(part)) <= _NAME_MAX for part in path.parts)
    )


def _is_in(path: PurePosixPath, parts: Iterable[str]) -> bool:
    return any(path.is_relative_to(part) for part in parts)


def _names(patch: bytes) -> Iterator[str]:
    # Yields the file names in headers, unchanged (as for -p0). Lines of hunks may look like headers; they are skipped.
    old = new = 0
    for line in patch.decode(errors="replace").splitlines():
        if old > 0 or new > 0:
            old -= line[:1] in {" ", "-", ""}
            new -= line[:1] in {" ", "+", ""}
        elif hunk := _HUNK.match(line):
            old, new = (int(count) if count is not None else 1 for count in hunk.groups())
        elif header := _HEADER.match(line):
            name = header[1].strip()
            if line.startswith(("rename", "copy")):
                name = f"a/{name}"
            if name != "/dev/null":
                yield name


def _decompressor(tarball: IO[bytes]) -> list[str]:
    # Chosen by the first bytes: tar itself cannot detect the compression of a pipe.
    magic = os.pread(tarball.fileno(), 6, 0)
    for start, option in _COMPRESSED.items():
        if magic.startswith(start):
            return [option]
    return []
