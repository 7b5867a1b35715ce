"""A kernel tree of the user's, a folder or a tarball: read, never written. The build is made on a copy in the cache.

The copy is brought up to date by content: only files that differ are written, so make compiles only what depends on
them. A build beside the tree's own files (O=) would not do: it needs a tree in which nothing was ever built.
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

if TYPE_CHECKING:
    from collections.abc import Iterable

    from uffdlab.kernels.progress import Progress
    from uffdlab.kernels.tree import Tree

_LIST_DEADLINE = 120.0  # s
# Files whose time stamps are younger than this, in ns, may change again without one that differs.
_RACY = 2_000_000_000
_MARKS = ("Makefile", "Kconfig", "arch/x86/Makefile", "mm/userfaultfd.c")
_BUILT = (".config", "include/config", "include/generated", "arch/x86/include/generated")

# What is in a file: "-" or "x" (executable) and the SHA-256 of its content, or "l" and where a link points.
Contents = dict[str, str]


@dataclass(frozen=True)
class Found:
    """A tree as it is now: each file's content by its path, and the hash over all."""

    files: Contents
    digest: str

    def resolved(self, path: Path) -> Resolved:
        """Give it the form of a package's version."""
        return Resolved(path.name, "", (Deb(path.name, "", 0, self.digest),))


def look(path: Path, memo: Path) -> Found:
    """Read a tree.

    Parameters
    ----------
    path : Path
        A folder, or a tarball; of that, the file itself is what is read.
    memo : Path
        Where to keep what was found, so that next time only files with another time stamp are read.

    Raises
    ------
    SourceError
        There is none, it is no kernel's, or it cannot be read.
    """
    try:
        return _read(path, _names(path), memo)
    except OSError as error:
        raise SourceError(f"{error.filename or path}: {error.strerror}: the kernel tree cannot be read") from error


def require_kernel(folder: Path, what: Path) -> None:
    """Refuse a folder that holds no kernel source, with :class:`SourceError`."""
    missing = [name for name in _MARKS if not (folder / name).is_file()]
    if missing:
        raise SourceError(
            f"{what} is no source of a kernel with userfaultfd: it has no {', '.join(missing)}. "
            "Give the top folder of a kernel tree, or a tarball of one"
        )


def copy(path: Path, found: Found, tree: Tree, progress: Progress) -> None:
    """Bring the copy in `tree` to what was found in the folder `path`.

    Raises
    ------
    SourceError
        A file changed since it was looked at.
    """
    state = tree.folder / "copied.json"
    have = _load(state)
    differs = {name for name in have.keys() | found.files.keys() if have.get(name) != found.files.get(name)}
    if not differs:
        return
    # A kill from here on leaves these marked as not known, so that they are written again.
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
    # The files that make up the tree, relative to it.
    if not path.is_dir():
        path.stat()
        return ["."]
    require_kernel(path, path)
    if (path / ".git").exists():
        return _known_to_git(path)
    if built := [name for name in _BUILT if (path / name).exists()]:
        raise SourceError(
            f"{path} is not in git, and a kernel was built in it ({', '.join(built)} are there), so it cannot be told "
            "what is source: give a git tree, a tarball, or a folder after `make mrproper`"
        )
    return [
        os.path.relpath(Path(folder, name), path)
        for folder, folders, files in os.walk(path)
        for name in [*files, *(each for each in folders if Path(folder, each).is_symlink())]
    ]


def _known_to_git(path: Path) -> list[str]:
    # What git tracks, and what is new and not ignored; nothing that a build in the tree left.
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
        raise SourceError(f"{path} is in git, and there is no git here (Debian: git) to ask what is in it") from error
    except subprocess.TimeoutExpired as error:
        raise SourceError(f"git ls-files in {path} had not finished after {_LIST_DEADLINE:.0f} s") from error
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip()
        raise SourceError(f"git ls-files in {path} ended with {done.returncode}: {said}")
    names = [os.fsdecode(name) for name in done.stdout.split(b"\0") if name]
    if ignored := sorted(set(_MARKS).difference(names)):
        raise SourceError(
            f"{path} is in git, which neither tracks nor would add {', '.join(ignored)}: an ignore rule leaves it "
            "out, as the .gitignore of Debian's linux-source does. `git add --force --all` there, or give a tarball"
        )
    return names


def _read(path: Path, names: Iterable[str], memo: Path) -> Found:
    before = _load(memo)
    now: dict[str, list[object]] = {}
    files: Contents = {}
    began = time.time_ns()
    for name in names:
        try:
            info = os.lstat(path / name)
        except FileNotFoundError:
            continue  # removed, and git not told
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
            if began - max(info.st_mtime_ns, info.st_ctime_ns) < _RACY:
                stamp[0] = -1
            now[name] = [*stamp, f"{kind}{digest}"]
        else:
            continue
        files[name] = str(now[name][-1])
    if now != before:
        write_atomically(memo, json.dumps(now).encode())
    return Found(files, hashlib.sha256(json.dumps(sorted(files.items())).encode()).hexdigest())


def _load(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return found
