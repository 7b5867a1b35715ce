"""What this kernel can do, found by trying it on a scratch page."""

from __future__ import annotations

import errno
import mmap
import os
from typing import Any

from uffdlab import uapi
from uffdlab.agent import native, uffds

_PAGE = mmap.PAGESIZE


def continue_wp() -> bool | None:
    """Try UFFDIO_CONTINUE with MODE_WP on a scratch shmem page; no feature bit tells of it.

    None where the kernel has no minor faults or no write protection on shmem at all.
    """
    needed = uapi.Feature.MINOR_SHMEM | uapi.Feature.WP_HUGETLBFS_SHMEM | uapi.Feature.PAGEFAULT_FLAG_WP
    file = native.memfd("probe", os.MFD_CLOEXEC)
    start = 0
    fd = -1
    try:
        os.ftruncate(file, _PAGE)
        os.pwrite(file, b"\1", 0)  # the page is in the page cache now, and mapped nowhere
        start = native.map_memory(0, _PAGE, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_SHARED, file)
        fd, _ = uffds.open_userfaultfd()
        if uffds.call(fd, uapi.IOCTLS["UFFDIO_API"], {"api": uapi.UFFD_API, "features": needed})["errno"]:
            return None
        page = {"start": start, "len": _PAGE}
        mode = uapi.RegisterMode.MINOR | uapi.RegisterMode.WP
        if uffds.call(fd, uapi.IOCTLS["UFFDIO_REGISTER"], {**page, "mode": mode})["errno"]:
            return None
        answer = uffds.call(fd, uapi.IOCTLS["UFFDIO_CONTINUE"], {**page, "mode": uapi.ContinueMode.WP})
        if answer["errno"] not in (0, errno.EINVAL):
            raise OSError(answer["errno"], "the probe of UFFDIO_CONTINUE_MODE_WP came back with an unexpected errno")
        return bool(answer["errno"] == 0)
    finally:
        if fd >= 0:
            os.close(fd)
        if start:
            native.unmap_memory(start, _PAGE)
        os.close(file)


def all_of_it() -> dict[str, Any]:
    """Give the features this kernel offers and what trying has shown."""
    return {"features": uffds.offered_features(), "continue_wp": continue_wp()}
