"""Open a userfaultfd in the target, with the features that a lab wants."""

from __future__ import annotations

import errno
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING

from uffdlab import uapi
from uffdlab.errors import IoctlError, UsageError
from uffdlab.uapi import Feature
from uffdlab.uapi.protocol.target import OpenUserfaultfd

if TYPE_CHECKING:
    from uffdlab.target.process import TargetProcess
    from uffdlab.uapi.protocol.target import OpenedUserfaultfd

#: The features that a lab enables if the kernel has them.  None of these changes what an ioctl does to a page.
DEFAULT_FEATURES = (
    Feature.MISSING_HUGETLBFS
    | Feature.MISSING_SHMEM
    | Feature.THREAD_ID
    | Feature.EXACT_ADDRESS
    | Feature.WP_HUGETLBFS_SHMEM
    # What the modes of UFFDIO_REGISTER need.
    | reduce(or_, (bit.feature for bit in uapi.IOCTLS["UFFDIO_REGISTER"].mode_bits.values()))
)


def open_userfaultfd(target: TargetProcess, features: Feature | None) -> OpenedUserfaultfd:
    """Open a userfaultfd in the target; see :meth:`uffdlab.lab.Lab.userfaultfd`."""
    if features is not None and not isinstance(features, int):
        raise UsageError(f"features={features!r} are no features of a userfaultfd; give flags of uffdlab.uapi.Feature")
    wanted, required = (DEFAULT_FEATURES, Feature(0)) if features is None else (Feature(0), features)
    answer = target.ask(OpenUserfaultfd(int(wanted), int(required)))
    if answer.errno:
        call = f"UFFDIO_API({uapi.flag_names(answer.asked, Feature)})"
        raise IoctlError(call, answer.errno, _why_refused(answer.errno, required, Feature(answer.offered)))
    return answer


def _why_refused(error: int, required: Feature, offered: Feature) -> str:
    lacking = int(required) & ~int(offered)  # as numbers: a Flag's ~ forgets bits without a name
    if lacking:
        return f"this kernel lacks {uapi.flag_names(lacking, Feature)}"
    if error == errno.EPERM and required & Feature.EVENT_FORK:
        return "EVENT_FORK needs CAP_SYS_PTRACE, which root has; leave it out"
    return "see userfaultfd(2)"
