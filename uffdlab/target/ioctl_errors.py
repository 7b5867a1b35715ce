"""IoctlErrors: make the errors of one userfaultfd's ioctls, with the likely reason."""

from __future__ import annotations

import errno as _errno
from typing import TYPE_CHECKING

from uffdlab.errors import IoctlError
from uffdlab.target import errno_reasons
from uffdlab.uapi import RegisterMode

if TYPE_CHECKING:
    from collections.abc import Iterable

    from uffdlab import uapi
    from uffdlab.target.process import TargetProcess
    from uffdlab.target.results import BatchResult, IoctlResult
    from uffdlab.uapi import Feature
    from uffdlab.uapi.protocol.target import RunBatch

_USER_ADDRESSES = 1 << 47  # the end of user space on x86-64 with four levels; arm64 has twice as much


class IoctlErrors:
    """Makes the errors of one userfaultfd's ioctls.

    It uses only what the host knows already.  A request to the target could fail or hang, and hide the error.

    Parameters
    ----------
    target : TargetProcess
    features, offered : Feature
        The features that are enabled, and those that this kernel offers.
    registered : iterable of (int, int, RegisterMode)
        Start, length in bytes and modes of each range that is registered already.

    Attributes
    ----------
    registered : list of (int, int, RegisterMode)
        These ranges, the newest last.  A range without modes is unregistered.
    """

    def __init__(
        self,
        target: TargetProcess,
        features: Feature,
        offered: Feature,
        registered: Iterable[tuple[int, int, RegisterMode]] = (),
    ) -> None:
        self.registered = list(registered)
        self._target = target
        self._features = features
        self._offered = offered

    def of_ioctl(self, ioctl: uapi.Ioctl, result: IoctlResult) -> IoctlError:
        """Return the error of an ioctl that failed with an errno."""
        reason = self._reason(ioctl, result.errno, result.values)
        return IoctlError(result.call, result.errno, reason, done=result.done, output=result.output or 0)

    def of_batch(self, ioctl: uapi.Ioctl, result: BatchResult, request: RunBatch) -> IoctlError:
        """Return the error of a batch."""
        done = result.pages * request.step
        failed = {name: value + (done if name in ("start", "dst") else 0) for name, value in request.values.items()}
        reason = f"after {result.pages} pages: {self._reason(ioctl, result.errno, failed)}"
        return IoctlError(result.call, result.errno, reason, done=done)

    def _reason(self, ioctl: uapi.Ioctl, error: int, values: dict[str, int]) -> str:
        start = values.get("start", values.get("dst", 0))
        length = values.get("len", 0)
        in_user_space = 0 <= start < start + length <= _USER_ADDRESSES
        if error in (_errno.EINVAL, _errno.ENOTTY) and ioctl.feature and not self._offered & ioctl.feature:
            return f"this kernel does not know {ioctl.name}, which Linux {ioctl.since} introduced"
        capabilities = self._target.known_capabilities
        return errno_reasons.explain(
            ioctl,
            error,
            values.get("mode", 0),
            registered=self.registered_at(start),
            knows_continue_wp=capabilities.continue_wp if capabilities else None,
            features=self._features,
            alignment=errno_reasons.unaligned_reason(ioctl, values, self._target.page_size_at(start)),
            beyond_user_space="len" in ioctl.fields and not in_user_space,
            memory=self._target.memory_at(start),
            owner=owner[0] if (owner := self._target.registry.owner_of(start, length)) else "",
        )

    def registered_at(self, address: int) -> RegisterMode | None:
        """Return what the memory at `address` is registered for, or None."""
        for low, length, mode in reversed(self.registered):
            if low <= address < low + length:
                return mode or None
        return None

    def moved(self, start: int, to: int, length: int) -> None:
        """Note that mremap(2) has moved a range, which stays registered with a userfaultfd that has EVENT_REMAP."""
        mode = self.registered_at(start)
        if mode:
            self.registered += [(start, length, RegisterMode(0)), (to, length, mode)]
