"""Memory, disk, and folders that must be writable."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from pathlib import Path

from uffdlab import cachedir
from uffdlab.doctor.line import Line, State

_MIB = 1 << 20
_GUEST_MIB = 160  # measured use of a small guest and QEMU
_MEMINFO = Path("/proc/meminfo")
_SHM = Path("/dev/shm")  # noqa: S108 - only looked at
_ONE_KERNEL = 400_000_000  # bytes: a packaged kernel while it is unpacked
_BUILD = 4_000_000_000  # bytes: sources and objects of our own kernels, kernels and saved guests


def memory(name: str) -> Line:
    """Check whether a guest has room in memory."""
    lines = _MEMINFO.read_text(encoding="ascii").splitlines()
    available = next((int(line.split()[1]) >> 10 for line in lines if line.startswith("MemAvailable:")), None)
    if available is None:
        return Line(name, State.OK, f"unknown: {_MEMINFO} has no MemAvailable")
    found = f"{available} MiB available, a guest needs about {_GUEST_MIB}"
    if available < _GUEST_MIB:
        return Line(name, State.MISSING, found, "close other programs or labs")
    return Line(name, State.OK, found)


def disk(name: str) -> Line:
    """Check whether kernels have room in the cache folder."""
    folder = _existing(cachedir.root())
    free = shutil.disk_usage(folder).free
    found = f"{free / 1e9:.1f} GB free in {folder}"
    todo = "uffdlab cache clear, or set UFFDLAB_CACHE to a folder with more room"
    if free < _ONE_KERNEL:
        return Line(name, State.MISSING, f"{found}; a kernel needs {_ONE_KERNEL / 1e9:.1f}", todo)
    if free < _BUILD:
        return Line(name, State.OPTIONAL, f"{found}; building our kernels needs {_BUILD / 1e9:.0f}", todo)
    return Line(name, State.OK, found)


def cache(name: str) -> Line:
    """Check whether this user can write to the cache folder, by writing a file without a name."""
    root = cachedir.root()
    folder = _existing(root)
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"x" * 4096)
    except OSError as error:
        return Line(
            name,
            State.MISSING,
            f"{folder} cannot be written to: {error.strerror}",
            "set UFFDLAB_CACHE to a folder of your own; kernels that somebody else keeps are read with UFFDLAB_IMAGES",
        )
    closed = [each.name for each in root.iterdir() if not os.access(each, os.W_OK)] if _is_there(root) else []
    if closed:
        return Line(
            name,
            State.MISSING,
            f"{root}: {', '.join(sorted(closed))} cannot be written to by this user",
            f"chown -R {os.geteuid()} {root}, as root, or set UFFDLAB_CACHE to another folder",
        )
    return Line(name, State.OK, str(root) + ("" if _is_there(root) else ", which is made at the first use"))


def shared_memory(name: str) -> Line:
    """Check /dev/shm, which small containers have with 64 MB."""
    if not _SHM.is_dir() or not os.access(_SHM, os.W_OK):
        return Line(
            name,
            State.OPTIONAL,
            f"{_SHM} is not there or cannot be written to; guests do not need it, a browser may",
            "in a container: mount a tmpfs there",
        )
    free = shutil.disk_usage(_SHM).free
    return Line(name, State.OK, f"{free // _MIB} MiB free; guests do not use it")


def _existing(folder: Path) -> Path:
    # The folder, or the nearest one above it that exists.
    return next(each for each in [folder, *folder.parents] if _is_there(each))


def _is_there(folder: Path) -> bool:
    # Path.is_dir() raises an error for a folder in one that is closed to this user, before Python 3.12.
    with contextlib.suppress(OSError):
        return folder.is_dir()
    return False
