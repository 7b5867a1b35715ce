"""Explain the errno of a userfaultfd ioctl: the likely reason, as text.

Sources: ioctl_userfaultfd(2); mm/userfaultfd.c and fs/userfaultfd.c of Linux 6.1 to 7.3.
"""

from __future__ import annotations

import errno

from uffdlab import uapi
from uffdlab.uapi.memory import MEMORY

_WP_AND_RWP = int(uapi.RegisterMode.WP | uapi.RegisterMode.RWP)

_NO_CONTINUE_WP = "this kernel does not know UFFDIO_CONTINUE_MODE_WP (Linux 6.4 and newer do, and 6.1-series)"
_SPANS_MAPPINGS = "the range spans memory that this ioctl cannot handle, or more than one mapping"


def unaligned_reason(ioctl: uapi.Ioctl, values: dict[str, int], page_size: int) -> str:
    """Return why the range is not made of whole pages of `page_size` bytes; "" if it is, or if there is no range."""
    if "len" not in ioctl.fields:
        return ""
    if not values.get("len"):
        return f"the range is empty (len 0): it must be one page, {page_size} bytes, or more"
    # UFFDIO_COPY accepts an unaligned source; UFFDIO_MOVE does not.
    for name in ("start", "dst", "len", *(["src"] if ioctl.moves else [])):
        value = values.get(name, 0)
        if value % page_size:
            return f"{name} {value:#x} is unaligned: it must be a multiple of the page size, {page_size} bytes"
    return ""


def explain(
    ioctl: uapi.Ioctl,
    error: int,
    mode: int,
    *,
    registered: uapi.RegisterMode | None,
    knows_continue_wp: bool | None,
    features: uapi.Feature | None = None,
    alignment: str = "",
    beyond_user_space: bool = False,
    memory: str = "",
    owner: str = "",
) -> str:
    """Return the likely reason for an errno, and what to do.

    Parameters
    ----------
    ioctl : Ioctl
        The ioctl that failed.
    error : int
        Its errno.
    mode : int
        The mode field of its argument.
    registered : RegisterMode or None
        The modes that the range is registered for with this userfaultfd; None if it is not registered.
    knows_continue_wp : bool or None
        Whether this kernel has UFFDIO_CONTINUE_MODE_WP, found by trying; None if that is not known.
    features : Feature or None
        The features of this userfaultfd; None if they are not known.
    alignment : str
        The result of :func:`unaligned_reason` for the range.
    beyond_user_space : bool
        Whether the range ends beyond the addresses of user space.
    memory : str
        The kind of memory, a name of :meth:`uffdlab.Lab.map`; empty if it is not known.
    owner : str
        The userfaultfd that the range is registered with, as an expression; empty if none is known.
    """
    if error == errno.EINVAL:
        if alignment:
            return alignment
        if beyond_user_space:
            return "a part of the range is beyond the addresses that a process can have"
        return _reason_for_einval(ioctl, mode, registered, knows_continue_wp, features, memory)
    reasons = {
        errno.EEXIST: "a page of the range is mapped already; UFFDIO_WRITEPROTECT can change a mapped page",
        errno.EAGAIN: "the target's mappings are changing, or only a part was done; try again from where it stopped",
        errno.EBUSY: "a page of the range belongs to another userfaultfd, or the kernel is using it; try again",
        errno.EFAULT: "the source cannot be read, or the page cannot be allocated",
        errno.ENOENT: "there is no page, or the range is not registered",
        errno.ESRCH: "the process of this userfaultfd has exited",
        errno.EPERM: "this process may not write the memory, or it lacks a privilege that userfaultfd needs",
        errno.ENOSPC: "no memory or quota is left for the page (hugetlb: no free huge page)",
        errno.ENOMEM: "the guest is out of memory",
        errno.ENOTTY: f"this kernel does not know {ioctl.name}, which Linux {ioctl.since} introduced",
    }
    return (
        _reason_for_dropped_mode(ioctl, error, mode, registered)
        or _reason_for_owner(ioctl, error, owner)
        or _reason_for_one_ioctl(ioctl, error, registered)
        or reasons.get(error, "ioctl_userfaultfd(2) gives no reason for this errno")
    )


def _reason_for_owner(ioctl: uapi.Ioctl, error: int, owner: str) -> str:
    # fs/userfaultfd.c, userfaultfd_register(): a range belongs to one userfaultfd.
    if ioctl.name != "UFFDIO_REGISTER" or error != errno.EBUSY:
        return ""
    if owner:
        return (
            f"{owner} has this range, or a part of it, registered already, and only one userfaultfd can. Use that one "
            f"(uffd = {owner}), or take the range from it: {owner}.close(); or map a new region"
        )
    return "another userfaultfd has this range registered, one that this lab does not have; close that one"


def _reason_for_one_ioctl(ioctl: uapi.Ioctl, error: int, registered: uapi.RegisterMode | None) -> str:
    # Errnos that mean something else for one ioctl than for the others.
    if error == errno.ENOENT and ioctl.moves and registered is not None:
        return "a page of the source is absent (allow_src_holes=True skips it), or a range spans mappings"
    if error == errno.ENOENT and ioctl.fills:
        return "the range is not registered with this userfaultfd, or spans mappings; uffd.register(…) first"
    return ioctl.reasons.get(error, "")


def _reason_for_dropped_mode(ioctl: uapi.Ioctl, error: int, mode: int, registered: uapi.RegisterMode | None) -> str:
    # mm/userfaultfd.c of 7.3: registering again must not drop a mode that page-table entries may be marked for.
    if ioctl.name != "UFFDIO_REGISTER" or error != errno.EBUSY or registered is None:
        return ""
    dropped = registered & (uapi.RegisterMode.WP | uapi.RegisterMode.RWP) & ~uapi.RegisterMode(mode)
    if not dropped:
        return ""
    return (
        f"the range is registered for {uapi.flag_names(dropped, uapi.RegisterMode)} with this userfaultfd; "
        "this kernel (7.3 or newer) drops that only in uffd.unregister(…)"
    )


def _reason_for_einval(
    ioctl: uapi.Ioctl,
    mode: int,
    registered: uapi.RegisterMode | None,
    knows_continue_wp: bool | None,
    features: uapi.Feature | None,
    memory: str,
) -> str:
    wants_wp = "WP" in ioctl.modes.__members__ and bool(mode & ioctl.modes["WP"])
    wrong = _wrong_mode(ioctl, mode) or _wrong_memory(ioctl, mode, memory)
    if wrong:
        return wrong
    if ioctl.name == "UFFDIO_REGISTER":
        return _reason_for_register(mode, features)
    missing = _missing_registration(ioctl, registered, wants_wp=wants_wp)
    unknown_wp = ioctl.name == "UFFDIO_CONTINUE" and wants_wp and not knows_continue_wp
    # No other EINVAL is possible for whole pages of one mapping that is registered for WP (mm/userfaultfd.c).
    if unknown_wp and (knows_continue_wp is False or not missing):
        return _NO_CONTINUE_WP
    if missing:
        return f"{missing}; or {_NO_CONTINUE_WP}" if unknown_wp else missing
    return ioctl.reasons.get(errno.EINVAL, _SPANS_MAPPINGS)


def _missing_registration(ioctl: uapi.Ioctl, registered: uapi.RegisterMode | None, *, wants_wp: bool) -> str:
    # The registration that the range lacks.
    if registered is None:
        what = "destination" if ioctl.moves else "range"
        return f"the {what} is not registered with this userfaultfd; uffd.register(…) first"
    if wants_wp and not registered & uapi.RegisterMode.WP:
        return "WP needs a range that is registered for WP; uffd.register(region, …, 'wp')"
    return ""


def _wrong_memory(ioctl: uapi.Ioctl, mode: int, memory: str) -> str:
    if not memory or MEMORY[memory].backing != "anon" or MEMORY[memory].shared:
        return ""
    if ioctl.name == "UFFDIO_CONTINUE":
        return f"it maps pages of the page cache, and {memory} has none there: use UFFDIO_COPY or UFFDIO_ZEROPAGE"
    if ioctl.name == "UFFDIO_REGISTER" and mode & uapi.RegisterMode.MINOR:
        return f"MINOR needs memory in the page cache (shmem, hugetlb); {memory} is not: register it for MISSING"
    return ""


def _reason_for_register(mode: int, features: uapi.Feature | None) -> str:
    if mode & uapi.RegisterMode.RWP and features is not None and not features & uapi.Feature.RWP:
        return "RWP needs a userfaultfd with Feature.RWP; lab.userfaultfd() enables it if the kernel has it (7.3)"
    return (
        f"this kernel cannot register this memory for {uapi.flag_names(mode, uapi.RegisterMode)}, or a "
        "part of the range is not mapped; lab.capabilities shows which memory it can register"
    )


def _wrong_mode(ioctl: uapi.Ioctl, mode: int) -> str:
    # What is wrong with the fields themselves, for any range.
    unknown = mode & ~sum(int(flag) for flag in ioctl.modes)
    if unknown:
        return f"{ioctl.name} has no mode bits {unknown:#x}"
    if "len" not in ioctl.fields and errno.EINVAL in ioctl.reasons:
        return ioctl.reasons[errno.EINVAL]
    if ioctl.name == "UFFDIO_REGISTER" and not mode:
        return "UFFDIO_REGISTER needs a mode: MISSING, WP, MINOR or RWP"
    if ioctl.name == "UFFDIO_REGISTER" and mode & _WP_AND_RWP == _WP_AND_RWP:
        return "WP and RWP share a bit of the page-table entry: a range can be registered for only one of them"
    if ioctl.protects and mode == sum(int(flag) for flag in ioctl.modes):
        return "protecting a range wakes no thread, so the kernel refuses DONTWAKE with it"
    return ""
