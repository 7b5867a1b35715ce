"""Files in the cache folder that are there whole or not at all, whoever is killed when."""

from __future__ import annotations

import errno
import os
import secrets
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import platformdirs

from uffdlab import errors

if TYPE_CHECKING:
    from collections.abc import Iterator

_NO_TMPFILE = (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL)


def folder(name: str) -> Path:
    """Return a folder of the cache, made if it is not there; nobody else can look into it.

    Raises
    ------
    HostUnsupported
        The cache folder cannot be made.
    """
    chosen = os.environ.get("UFFDLAB_CACHE")
    path = (Path(chosen) if chosen else platformdirs.user_cache_path("uffdlab")) / name
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise _cannot_write(path, error) from error
    return path


def _cannot_write(path: Path, error: OSError) -> errors.HostUnsupported:
    return errors.HostUnsupported(
        f"writing to the cache folder {path} failed: {error.strerror}. "
        "Make room or set UFFDLAB_CACHE to a folder that can be written to",
        missing="disk space" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "cache folder",
    )


@contextmanager
def publish(path: Path, *, mode: int = 0o600) -> Iterator[BinaryIO]:
    """Give a file to write, which appears at `path` in one step when the block ends without an error.

    A process killed in between leaves nothing: until the end the file has no name.

    Raises
    ------
    HostUnsupported
        No disk space, or the folder cannot be written to.
    """
    try:
        with _nameless(path.parent) as file:
            yield file
            file.flush()
            os.fchmod(file.fileno(), mode)
            passing = path.parent / f".{path.name}.{secrets.token_hex(4)}"
            # A directory descriptor makes Python use linkat(2), which alone follows the /proc link.
            here = os.open("/", os.O_PATH | os.O_DIRECTORY)
            try:
                os.link(f"/proc/self/fd/{file.fileno()}", passing, src_dir_fd=here, follow_symlinks=True)
                passing.replace(path)
            finally:
                os.close(here)
                passing.unlink(missing_ok=True)
    except OSError as error:
        raise _cannot_write(path.parent, error) from error


@contextmanager
def _nameless(where: Path) -> Iterator[BinaryIO]:
    try:
        descriptor = os.open(where, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if error.errno not in _NO_TMPFILE:
            raise
        # A file system without O_TMPFILE: the name lives as long as the block.
        with tempfile.NamedTemporaryFile(dir=where, prefix=".") as file:
            yield file  # type: ignore[misc]  # the wrapper has all of BinaryIO
        return
    with os.fdopen(descriptor, "w+b") as file:
        yield file


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
