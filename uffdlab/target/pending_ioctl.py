"""PendingIoctl: an ioctl that waits in the kernel, on a thread of its own in the target."""

from __future__ import annotations

from typing import TYPE_CHECKING

from uffdlab.target.ioctls import ioctl_result
from uffdlab.uapi.protocol.target import IoctlAnswer

if TYPE_CHECKING:
    from uffdlab import uapi
    from uffdlab.target.results import IoctlResult
    from uffdlab.target.touch import Touch


class PendingIoctl:
    """An ioctl on a thread of its own in the target: it may wait, and nothing else waits with it.

    Attributes
    ----------
    touch : Touch
        Its ticket: ``state``, ``withdraw()``.
    """

    def __init__(self, touch: Touch[int], ioctl: uapi.Ioctl, values: dict[str, int]) -> None:
        self.touch = touch
        self._ioctl = ioctl
        self._values = values

    def result(self, timeout: float = 10.0) -> IoctlResult:
        """Wait for it to come back, and give what it came back with; an errno is no error here.

        Raises
        ------
        FaultUnresolved
            When it still waits after `timeout` seconds; it can be asked again.
        TouchFailed
            When it was withdrawn, or ended in another way than by coming back.
        TargetLost
            When the target died.
        """
        end = self.touch.outcome(timeout)
        if end.state != "done":
            raise self.touch.failure(end)
        answer = IoctlAnswer(started_ns=0, ended_ns=end.took_ns, errno=end.errno, fields=end.fields)
        return ioctl_result(self._ioctl, self._values, answer)

    def __repr__(self) -> str:
        return f"<PendingIoctl: {self.touch!r}>"
