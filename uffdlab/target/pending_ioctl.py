"""PendingIoctl: an ioctl that waits in the kernel, on its own thread in the target."""

from __future__ import annotations

from typing import TYPE_CHECKING

from uffdlab.target.ioctls import ioctl_result
from uffdlab.uapi.protocol.target import IoctlAnswer

if TYPE_CHECKING:
    from uffdlab import uapi
    from uffdlab.target.results import IoctlResult
    from uffdlab.target.touch import Touch


class PendingIoctl:
    """An ioctl on its own thread in the target.  It may wait, and nothing else waits with it.

    Attributes
    ----------
    touch : Touch
        The touch that makes it, with ``state`` and ``withdraw()``.
    """

    def __init__(self, touch: Touch[int], ioctl: uapi.Ioctl, values: dict[str, int]) -> None:
        self.touch = touch
        self._ioctl = ioctl
        self._values = values

    def result(self, timeout: float = 10.0) -> IoctlResult:
        """Wait until the ioctl returns, and return its result; an errno is not an error here.

        Raises
        ------
        FaultUnresolved
            It still waits after `timeout` seconds.  Call this again to wait longer.
        TouchFailed
            It was withdrawn, or ended without returning.
        TargetLost
            The target died.
        """
        end = self.touch.outcome(timeout)
        if end.state != "done":
            raise self.touch._failure(end)
        answer = IoctlAnswer(started_ns=0, ended_ns=end.took_ns, errno=end.errno, fields=end.fields)
        return ioctl_result(self._ioctl, self._values, answer)

    def __repr__(self) -> str:
        return f"<PendingIoctl: {self.touch!r}>"
