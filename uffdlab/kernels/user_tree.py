"""A user's kernel tree, a folder or a tarball. It is only read; the build uses a copy in the cache.

An update of the copy compares contents and writes only files that differ, so make compiles only what depends on them.
A build in another folder (make O=) is not possible: it needs a tree in which nothing was ever built.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from uffdlab.cachedir import write_atomically
from uffdlab.errors import SourceError
from uffdlab.kernels.apt import Deb, Resolved
from uffdlab.processes.system_packages import how_to_install

if TYPE_CHECKING:
    from collections.abc import Iterable

    from uffdlab.kernels.progress import Progress
    from uffdlab.kernels.tree import Tree

_LIST_DEADLINE = 120.0  # s
# In ns. A file whose time stamps are younger than this may change again and keep them.
_MTIME_RESOLUTION_NS = 2_000_000_000
_MARKS = ("Makefile", "Kconfig", "arch/x86/Makefile", "mm/userfaultfd.c")
_BUILT = (".config", "include/config", "include/generated", "arch/x86/include/generated")

# File name → "-" or "x" (executable) and the SHA-256 of the content, or "l" and the target of a symbolic link.
Contents = dict[str, str]


@dataclass(frozen=True)
class Found:
    """The state of a tree: the content of each file by its path, and the hash of all files."""

    files: Contents
    digest: str

    def resolved(self, path: Path) -> Resolved:
        """Return the state in the form of a package's version, whose SHA256 is the hash."""
        return Resolved(path.name, "", (Deb(path.name, "", 0, self.digest),))


def read_state(path: Path, cached: Path) -> Found:
    """Return the state of a tree.

    Parameters
    ----------
    path : Path
        A folder, or a tarball. A tarball is read as one file.
    cached : Path
        A file for the result, so that the next call reads only files whose time stamps changed.

    Raises
    ------
    SourceError
        The tree does not exist, cannot be read, or is not a kernel's.
    """
    try:
        return _read(path, _names(path), cached)
    except OSError as error:
        raise SourceError(
            f"the kernel tree cannot be read: {error.filename or path}: {error.strerror}. Give the top folder of a "
            "kernel tree, or a tarball of one"
        ) from error


def require_kernel(folder: Path, what: Path) -> None:
    """Raise :class:`SourceError` if `folder` has no kernel source. `what` is its name in the message."""
    missing = [name for name in _MARKS if not (folder / name).is_file()]
    if missing:
        raise SourceError(
            f"{what} is not the source of a kernel with userfaultfd: it has no {', '.join(missing)}. "
            "Give the top folder of a kernel tree, or a tarball of one"
        )


def copy(path: Path, found: Found, tree: Tree, progress: Progress) -> None:
    """Update the copy in `tree` to the state `found` of the folder `path`.

    Raises
    ------
    SourceError
        A file in `path` no longer has the content in `found`.
    """
    state = tree.folder / "copied.json"
    have = _load(state)
    differs = {name for name in have.keys() | found.files.keys() if have.get(name) != found.files.get(name)}
    if not differs:
        return
    # If we are killed from here on, the next call writes these files again.
    write_atomically(state, json.dumps({**have, **dict.fromkeys(differs, "")}).encode())
    gone = sorted(differs - found.files.keys())
    written = sorted(differs - set(gone))
    progress.stage("copying what changed", len(written), "files")
    tree.source.mkdir(exist_ok=True)
    for name in gone:
        tree.put(PurePosixPath(name), None)
    for count, name in enumerate(written):
        what = found.files[name]
        data = os.fsencode(what[1:]) if what[0] == "l" else (path / name).read_bytes()
        if what[0] != "l" and hashlib.sha256(data).hexdigest() != what[1:]:
            raise SourceError(f"{path / name} changed while it was read: try again")
        tree.put(PurePosixPath(name), data, kind=what[0])
        progress.at(count + 1)
    write_atomically(state, json.dumps(found.files).encode())


def _names(path: Path) -> list[str]:
    # Returns the tree's source files, relative to it.
    if not path.is_dir():
        path.stat()
        return ["."]
    require_kernel(path, path)
    if (path / ".git").exists():
        return _names_from_git(path)
    if built := [name for name in _BUILT if (path / name).exists()]:
        raise SourceError(
            f"{path} is not in git, and a kernel was built in it (it has {', '.join(built)}), so its source files are "
            "unknown: give a git tree, a tarball, or a folder after `make mrproper`"
        )
    return [
        os.path.relpath(Path(folder, name), path)
        for folder, folders, files in os.walk(path)
        for name in [*files, *(each for each in folders if Path(folder, each).is_symlink())]
    ]


def _names_from_git(path: Path) -> list[str]:
    # Returns the files that git tracks and new files that it does not ignore, so no output of a build.
    options = ["-c", f"safe.directory={path}", "-c", "core.fsmonitor=false", "-C", str(path)]
    try:
        done = subprocess.run(
            ["git", *options, "ls-files", "-z", "-co", "--exclude-standard"],
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_LIST_DEADLINE,
            check=False,
        )
    except FileNotFoundError as error:
        raise SourceError(f"{path} is a git tree, and git is not installed: {how_to_install('git')}") from error
    except subprocess.TimeoutExpired as error:
        raise SourceError(
            f"git ls-files in {path} had not finished after {_LIST_DEADLINE:.0f} s: try again, or give a tarball"
        ) from error
    if done.returncode:
        message = done.stderr.decode(errors="replace").strip()
        raise SourceError(f"git ls-files in {path} ended with {done.returncode}: {message}")
    names = [os.fsdecode(name) for name in done.stdout.split(b"\0") if name]
    if ignored := sorted(set(_MARKS).difference(names)):
        raise SourceError(
            f"{path} is a git tree, and git ignores {', '.join(ignored)}, as the .gitignore of Debian's linux-source "
            "says: run `git add --force --all` there, or give a tarball"
        )
    return names


def _read(path: Path, names: Iterable[str], cached: Path) -> Found:
    before = _load(cached)
    now: dict[str, list[object]] = {}
    files: Contents = {}
    began = time.time_ns()
    for name in names:
        try:
            info = os.lstat(path / name)
        except FileNotFoundError:
            continue  # git still tracks it, but it was removed
        stamp = [info.st_size, info.st_mtime_ns, info.st_ctime_ns, info.st_ino, info.st_mode]
        known = before.get(name, [])
        if known[:-1] == stamp:
            now[name] = known
        elif stat.S_ISLNK(info.st_mode):
            now[name] = [*stamp, f"l{(path / name).readlink()}"]
        elif stat.S_ISREG(info.st_mode):
            with (path / name).open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            kind = "x" if info.st_mode & 0o100 else "-"
            if began - max(info.st_mtime_ns, info.st_ctime_ns) < _MTIME_RESOLUTION_NS:
                stamp[0] = -1
            now[name] = [*stamp, f"{kind}{digest}"]
        else:
            continue
        files[name] = str(now[name][-1])
    if now != before:
        write_atomically(cached, json.dumps(now).encode())
    return Found(files, hashlib.sha256(json.dumps(sorted(files.items())).encode()).hexdigest())


def _load(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return found
