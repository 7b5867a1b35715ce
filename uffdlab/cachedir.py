"""The cache folder: its path, its locks, and atomic writes, which leave no incomplete file if a process is killed."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import re
import secrets
import shutil
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from uffdlab import errors, settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_NO_TMPFILE = (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL)
_LOCK_POLL = 0.2  # s
_LOCK_DEADLINE = 2 * 3600.0  # s; longer than any build's own deadlines


def root() -> Path:
    """Return the cache folder, ``$UFFDLAB_CACHE`` or else the user's. It may not exist.

    Raises
    ------
    HostUnsupported
        ``$UFFDLAB_CACHE`` begins with ``~`` and a name that no user here has.
    """
    return settings.cache_folder()


def folder(name: str) -> Path:
    """Return a folder of the cache. Create it if it does not exist; only its owner can read it.

    Raises
    ------
    HostUnsupported
        The cache folder cannot be made or written to.
    """
    path = root() / name
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not os.access(path, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise _cannot_write(path, error) from error
    return path


def _cannot_write(path: Path, error: OSError) -> errors.HostUnsupported:
    denied = error.errno in (errno.EACCES, errno.EPERM, errno.EROFS)
    return errors.HostUnsupported(
        f"writing to the cache folder {path} failed: {error.strerror}. "
        "Make room or set UFFDLAB_CACHE to a folder that can be written to"
        + (". Kernels that somebody else keeps for you are read with UFFDLAB_IMAGES" if denied else ""),
        missing="disk space" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "cache folder",
    )


@contextmanager
def publish(path: Path, *, mode: int = 0o600) -> Iterator[BinaryIO]:
    """Yield a file to write, which appears at `path` in one step when the block ends without an error.

    A process killed in between leaves nothing: until the end the file has no name.

    Raises
    ------
    HostUnsupported
        No disk space, or the folder cannot be written to.
    """
    try:
        with replacing(path) as file:
            os.fchmod(file.fileno(), mode)
            yield file
    except OSError as error:
        raise _cannot_write(path.parent, error) from error


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file so that it exists completely or not at all, even after a power failure. Create its folder.

    Raises
    ------
    OSError
        As for any file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Yield a file to write and read, which replaces `path` when the block ends without an error.

    Until then it has no name, if the file system supports that.

    Raises
    ------
    OSError
        As for any file.
    """
    passing = path.parent / f".{path.name}.{secrets.token_hex(4)}"
    try:
        descriptor = os.open(path.parent, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o666)
        named = False
    except OSError as error:
        if error.errno not in _NO_TMPFILE:
            raise
        descriptor = os.open(passing, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o666)
        named = True
    try:
        with os.fdopen(descriptor, "w+b") as file:
            yield file
            file.flush()
            if not named:
                # A directory descriptor makes Python use linkat(2), which alone follows the /proc link.
                here = os.open("/", os.O_PATH | os.O_DIRECTORY)
                try:
                    os.link(f"/proc/self/fd/{file.fileno()}", passing, src_dir_fd=here, follow_symlinks=True)
                finally:
                    os.close(here)
            passing.replace(path)
    finally:
        passing.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def prune(where: Path, pattern: str, keep: int) -> None:
    """Delete all but the `keep` most recently used files that match (use is marked by `touch`)."""
    aged = []
    for path in where.glob(pattern):
        with suppress(OSError):
            aged.append((path.stat().st_mtime_ns, path))
    for _when, path in sorted(aged, reverse=True)[keep:]:
        with suppress(OSError):
            path.unlink()


def touch(path: Path) -> None:
    """Mark a file as used now."""
    with suppress(OSError):
        os.utime(path)


def discard(folder: Path) -> None:
    """Remove a folder. It is renamed first, so that its name never refers to an incomplete folder."""
    if not folder.exists():
        return
    trash = folder.with_name(f".trash-{os.getpid()}-{time.monotonic_ns()}")
    for old in folder.parent.glob(".trash-*"):  # of a process that was killed here
        shutil.rmtree(old, ignore_errors=True)
    folder.rename(trash)
    shutil.rmtree(trash, ignore_errors=True)


def slug(text: str) -> str:
    """Return a file name for a name. Different names give different file names."""
    plain = re.sub(r"[^A-Za-z0-9._+-]", "_", text)
    if plain == text and not plain.startswith("."):
        return plain
    return f"{plain.lstrip('.')}~{hashlib.sha256(text.encode()).hexdigest()[:8]}"


@contextmanager
def locked_file(
    path: Path, what: str, deadline: float = _LOCK_DEADLINE, on_wait: Callable[[str, float], None] | None = None
) -> Iterator[int]:
    """Hold flock(2) on the file `path`, and yield its descriptor.

    A child that inherits the descriptor shares the lock, so it is released only when every such process has ended.

    Parameters
    ----------
    what : str
        What the lock protects, for the message.
    deadline : float
        In seconds.
    on_wait : callable, optional
        Called with the process that holds the lock, and the seconds waited so far.

    Raises
    ------
    KernelError
        Another process held the lock until the deadline.
    """
    began = time.monotonic()
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip() or "?"
                waited = time.monotonic() - began
                if waited > deadline:
                    raise errors.KernelError(
                        f"{what}: process {holder} has held {path} for {deadline:.0f} s: end it, then try again"
                    ) from None
                if on_wait is not None:
                    on_wait(holder, waited)
                time.sleep(min(_LOCK_POLL, deadline))
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield descriptor
    finally:
        os.close(descriptor)  # not LOCK_UN: that would free it for the children too
