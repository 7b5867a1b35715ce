"""What came back from system calls and ioctls of the target."""

from __future__ import annotations

from msgspec import Struct

from uffdlab.errors import errno_name


class ReturnedCall(Struct, frozen=True):
    """A call into the kernel that has come back.

    Attributes
    ----------
    call : str
        The call as text.
    errno : int
        0 if it succeeded.
    took_ns : int
        How long it took in the guest, in ns.
    """

    call: str
    errno: int
    took_ns: int

    @property
    def ok(self) -> bool:
        """Whether it came back without an errno."""
        return self.errno == 0


class CallResult(ReturnedCall, frozen=True):
    """What came back from a system call.

    Attributes
    ----------
    value : int
        What it returned; -1 with an errno.
    """

    value: int


class IoctlResult(ReturnedCall, frozen=True):
    """What came back from an ioctl.

    Attributes
    ----------
    done : int
        Bytes done, from the output field; the whole length for an ioctl that has none and succeeded.
    output : int or None
        The output field as the kernel left it; None if this ioctl has none.
    fields : dict
        Every field of the argument as the kernel left it.
    name : str
        The ioctl.
    values : dict
        The fields that were sent.
    source : bytes or None
        What UFFDIO_COPY was given to copy.
    """

    done: int
    output: int | None
    fields: dict[str, int]
    name: str
    values: dict[str, int]
    source: bytes | None = None

    def __repr__(self) -> str:
        return f"<{self.call} → {errno_name(self.errno)}, {self.done} bytes, {self.took_ns / 1000:.1f} µs>"


class BatchResult(ReturnedCall, frozen=True):
    """What came back from one ioctl a page.  ``errno`` is that of the page that failed; the batch ends there.

    Attributes
    ----------
    pages : int
        How many succeeded.
    """

    pages: int
