"""The results of system calls and ioctls that the target made."""

from __future__ import annotations

from msgspec import Struct

from uffdlab.errors import errno_name


class ReturnedCall(Struct, frozen=True):
    """A call into the kernel that has returned.

    Attributes
    ----------
    call : str
        The call as text.
    errno : int
        0 if it succeeded.
    took_ns : int
        The time that it took in the guest, in ns.
    """

    call: str
    errno: int
    took_ns: int

    @property
    def ok(self) -> bool:
        """Whether it succeeded."""
        return self.errno == 0


class CallResult(ReturnedCall, frozen=True):
    """The result of a system call.

    Attributes
    ----------
    value : int
        The return value; -1 if it failed.
    """

    value: int


class IoctlResult(ReturnedCall, frozen=True):
    """The result of an ioctl.

    Attributes
    ----------
    done : int
        The number of bytes done, from the output field.  If the ioctl has no output field, the whole length on success.
    output : int or None
        The value of the output field after the call; None if the ioctl has none.
    fields : dict
        All fields of the argument after the call.
    name : str
        The ioctl.
    values : dict
        The fields of the argument before the call.
    source : bytes or None
        The bytes that UFFDIO_COPY was to copy.
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
    """The result of a batch: one ioctl for each page.  It ends at the first page that fails; ``errno`` is its errno.

    Attributes
    ----------
    pages : int
        The number of pages that succeeded.
    """

    pages: int
