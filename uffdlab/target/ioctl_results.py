"""What came back from ioctls."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from uffdlab import uapi
from uffdlab.errors import errno_name
from uffdlab.uapi.protocol.target import IoctlAnswer

if TYPE_CHECKING:
    from uffdlab.target.touch import Touch


class IoctlResult(Struct, frozen=True):
    """What came back from an ioctl.

    Attributes
    ----------
    call : str
        The call as text.
    errno : int
        0 if it succeeded.
    done : int
        Bytes done, from the output field; the whole length for an ioctl that has none and succeeded.
    output : int or None
        The output field as the kernel left it; None if this ioctl has none.
    fields : dict
        Every field of the argument as the kernel left it.
    took_ns : int
        How long it took in the guest, in ns.
    name : str
        The ioctl.
    values : dict
        The fields that were sent.
    source : bytes or None
        What UFFDIO_COPY was given to copy.
    """

    call: str
    errno: int
    done: int
    output: int | None
    fields: dict[str, int]
    took_ns: int
    name: str = ""
    values: dict[str, int] = {}
    source: bytes | None = None

    @property
    def ok(self) -> bool:
        """It came back without an errno."""
        return self.errno == 0

    def __repr__(self) -> str:
        return f"<{self.call} → {errno_name(self.errno)}, {self.done} bytes, {self.took_ns / 1000:.1f} µs>"

    @classmethod
    def from_answer(
        cls, ioctl: uapi.Ioctl, values: dict[str, int], answer: IoctlAnswer, where: str, source: bytes | None
    ) -> IoctlResult:
        """Make it of what the target answered; `where` describes the range, "" to print its address."""
        fields, error = answer.fields, answer.errno
        output = fields[ioctl.output] if ioctl.output else None
        # The kernel sets the output field to bytes or -errno; on some paths it leaves what was there, which was 0.
        whole = 0 if error else values.get("len", 0)
        done = whole if output is None else max(0, output)
        took = answer.ended_ns - answer.started_ns
        return cls(call_text(ioctl, values, where), error, done, output, fields, took, ioctl.name, dict(values), source)


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
        answer = IoctlAnswer(started_ns=0, ended_ns=end.took_ns, errno=max(0, -end.returned), fields=end.fields)
        return IoctlResult.from_answer(self._ioctl, self._values, answer, "", None)

    def __repr__(self) -> str:
        return f"<PendingIoctl: {self.touch!r}>"


class BatchResult(Struct, frozen=True):
    """What came back from one ioctl a page.

    Attributes
    ----------
    call : str
        The calls as text.
    errno : int
        Of the page that failed, 0 if none did; the batch ends there.
    pages : int
        How many succeeded.
    took_ns : int
        How long all took in the guest, in ns.
    """

    call: str
    errno: int
    pages: int
    took_ns: int

    @property
    def ok(self) -> bool:
        """All pages came back without an errno."""
        return self.errno == 0


def call_text(ioctl: uapi.Ioctl, values: dict[str, int], where: str) -> str:
    """Return a call as text: ``UFFDIO_CONTINUE(page 3, WP)``."""
    if "api" in ioctl.fields:
        parts = [f"api {values.get('api', 0):#x}", uapi.flag_names(values.get("features", 0), uapi.Feature)]
    elif "enable" in ioctl.fields:
        parts = [f"{name} {uapi.flag_names(values.get(name, 0), uapi.Feature)}" for name in ioctl.fields]
    else:
        parts = [where or f"{values.get('start', values.get('dst', 0)):#x}+{values.get('len', 0):#x}"]
    if values.get("mode"):
        parts.append(uapi.flag_names(values["mode"], ioctl.modes))
    return f"{ioctl.name}({', '.join(parts)})"
