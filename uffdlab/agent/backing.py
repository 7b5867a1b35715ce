"""The files behind mappings. Anonymous memory has none."""

from __future__ import annotations

import errno
import os

from uffdlab.agent import native
from uffdlab.agent.rpc import Refusal
from uffdlab.uapi.memory import Memory


def open_file(memory: Memory, name: str, length: int) -> int:
    """Make the file behind a mapping and return its descriptor, or -1 for anonymous memory."""
    if memory.backing == "anon":
        return -1
    if memory.backing == "shmem":
        fd = native.memfd(name, os.MFD_CLOEXEC)
    elif memory.backing == "hugetlb":
        size = memory.page_size.bit_length() - 1
        fd = native.memfd(name, os.MFD_CLOEXEC | os.MFD_HUGETLB | size << os.MFD_HUGE_SHIFT)
    else:
        fd = _tmpfs_file("always" if memory.backing == "tmpfs-huge" else "never")
    try:
        os.ftruncate(fd, length)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _tmpfs_file(huge: str) -> int:
    # A detached mount (fsopen, fsmount: Linux 5.2). The kernel removes it when the last descriptor is closed.
    try:
        folder = native.detached_tmpfs(huge)
    except OSError as error:
        if error.errno == errno.EINVAL and huge == "always":
            raise Refusal(
                "map-failed", "this kernel's tmpfs does not have the mount option huge=always", errno=error.errno
            ) from error
        if error.errno == errno.EPERM:
            raise Refusal(
                "map-failed",
                "mounting a tmpfs needs CAP_SYS_ADMIN, which root has; use memory='shmem'",
                errno=error.errno,
            ) from error
        raise
    try:
        return os.open(".", os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600, dir_fd=folder)
    finally:
        os.close(folder)
