"""The target's userfaultfds: opening them, their ioctls, and reading their messages."""

from __future__ import annotations

import errno
import os

from uffdlab.agent import native
from uffdlab.agent.native import ffi, lib
from uffdlab.agent.rpc import Refusal
from uffdlab.uapi.layout import LAYOUTS, MESSAGE_SIZE, UFFD_API, USER_MODE_ONLY, USERFAULTFD_IOC_NEW

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from uffdlab.uapi.layout import Layout

_FLAGS = os.O_CLOEXEC | os.O_NONBLOCK  # as UFFD_CLOEXEC and UFFD_NONBLOCK
_DEVICE = "/dev/userfaultfd"
_MESSAGES_AT_ONCE = 256


def _by_device() -> int:
    device = os.open(_DEVICE, os.O_RDWR | os.O_CLOEXEC)
    try:
        import fcntl

        # USERFAULTFD_IOC_NEW takes the flags as its argument and returns the new descriptor.
        return fcntl.ioctl(device, USERFAULTFD_IOC_NEW, int(_FLAGS))
    finally:
        os.close(device)


_WAYS: tuple[tuple[str, Callable[[], int]], ...] = (
    ("userfaultfd(2)", lambda: native.userfaultfd(_FLAGS)),
    (_DEVICE, _by_device),
    ("userfaultfd(2) with UFFD_USER_MODE_ONLY", lambda: native.userfaultfd(_FLAGS | USER_MODE_ONLY)),
)
# What each way needs, in the same order.
_NEEDS = (
    "for all faults, with CAP_SYS_PTRACE or vm.unprivileged_userfaultfd=1",
    "for all faults, with permission to read and write that file; since Linux 6.1",
    "for faults in user mode only, needs no privilege; since Linux 5.11",
)
_SYSCTL = "/proc/sys/vm/unprivileged_userfaultfd"


def open_userfaultfd() -> tuple[int, str]:
    """Open one by the system call, the device, or for user mode only; return (fd, the way that worked)."""
    tried = []
    for way, attempt in _WAYS:
        try:
            return attempt(), way
        except OSError as error:
            tried.append(error.errno or errno.EINVAL)
    raise Refusal("no-userfaultfd", _why_none_opened(tried))


def _why_none_opened(tried: list[int]) -> str:
    lines = [
        f"{number}. {way} ({needs}) → {errno.errorcode.get(error, error)}: {os.strerror(error)}"
        for number, ((way, _), needs, error) in enumerate(zip(_WAYS, _NEEDS, tried, strict=True), 1)
    ]
    return "\n".join(["no way to open a userfaultfd worked; tried in this order:", *lines, _what_to_do(tried)])


def _what_to_do(tried: list[int]) -> str:
    call, _, user_mode = tried
    if call in (errno.EMFILE, errno.ENFILE):
        return "Too many files are open: close some userfaultfds, or raise the limit (ulimit -n)"
    if call == errno.ENOSYS:
        return "This kernel has no userfaultfd (CONFIG_USERFAULTFD), or a seccomp filter hides it: use a guest, Lab()"
    setting = f"vm.unprivileged_userfaultfd is {_setting()}. " if os.path.exists(_SYSCTL) else ""
    if user_mode == errno.EPERM:
        return (
            f"{setting}The kernel itself never refuses the last: a seccomp filter or a security module forbids it, "
            "as containers do. Allow userfaultfd(2) there, let this user read and write /dev/userfaultfd, or use a "
            "guest, Lab()"
        )
    return (
        f"{setting}Run it as root, set that to 1, let this user read and write /dev/userfaultfd, or use a guest, Lab()"
    )


def _setting() -> str:
    with open(_SYSCTL, encoding="ascii") as file:
        return file.read().strip()


def ways() -> dict[str, int]:
    """Try every way to open one; return each way's errno, 0 where it worked."""
    found = {}
    for way, attempt in _WAYS:
        try:
            os.close(attempt())
            found[way] = 0
        except OSError as error:
            found[way] = error.errno or errno.EINVAL
    return found


def call(fd: int, ioctl: Layout, values: dict[str, int]) -> dict[str, Any]:
    """Make one ioctl; return its errno, the fields of its argument after the call, and its times in ns."""
    argument = bytearray(ioctl.pack(values))
    error, started, ended = native.ioctl(fd, ioctl.request, ffi.from_buffer(argument))
    return {"errno": error, "fields": ioctl.unpack(argument), "started_ns": started, "ended_ns": ended}


def batch(fd: int, ioctl: Layout, values: dict[str, int], step: int, count: int) -> dict[str, Any]:
    """Make one ioctl for each of `count` pages, in native code; `values` are the fields for the first page.

    Returns how many succeeded, the errno of the one that failed (0 if none), and the times in ns.
    """
    if not ioctl.batch:
        others = ", ".join(name for name, each in LAYOUTS.items() if each.batch)
        raise Refusal("usage", f"{ioctl.name} cannot be made page by page; the ioctls that can are {others}")
    work = ffi.new("struct lab_batch *")
    work.argument = [values.get(name, 0) for name in ioctl.fields] + [0] * (5 - len(ioctl.fields))
    work.step, work.count = step, count
    error = -lib.lab_batch_run(fd, ioctl.request, work)
    return {"errno": error, "done": work.done, "started_ns": work.started_ns, "ended_ns": work.ended_ns}


def offered_features() -> int:
    """Ask a scratch userfaultfd which features this kernel has (UFFDIO_API with features=0)."""
    fd, _ = open_userfaultfd()
    try:
        answer = call(fd, LAYOUTS["UFFDIO_API"], {"api": UFFD_API})
    finally:
        os.close(fd)
    if answer["errno"]:
        raise Refusal("no-userfaultfd", f"UFFDIO_API(features=0) → {errno.errorcode[answer['errno']]}")
    return int(answer["fields"]["features"])


class Userfaultfds:
    """The open userfaultfds of one target, by number."""

    def __init__(self) -> None:
        self._next = 1
        self.fds: dict[int, int] = {}

    def adopt(self, fd: int) -> int:
        """Add the userfaultfd of a FORK event and return its number."""
        os.set_inheritable(fd, False)
        os.set_blocking(fd, False)
        number = self._next
        self._next += 1
        self.fds[number] = fd
        return number

    def open(self, wanted: int, required: int) -> dict[str, Any]:
        """Open one and enable the features of `wanted` that the kernel has, and all of `required`."""
        offered = offered_features()
        fd, way = open_userfaultfd()
        features = wanted & offered | required
        try:
            answer = call(fd, LAYOUTS["UFFDIO_API"], {"api": UFFD_API, "features": features})
        except BaseException:
            os.close(fd)
            raise
        if answer["errno"]:
            os.close(fd)
            return {"number": 0, "way": way, "offered": offered, "asked": features, **answer}
        return {"number": self.adopt(fd), "way": way, "offered": offered, "asked": features, **answer}

    def fd(self, number: int) -> int:
        """Return the descriptor of userfaultfd `number`."""
        if number not in self.fds:
            raise Refusal("closed", "this userfaultfd is closed; lab.userfaultfd() opens a new one")
        return self.fds[number]

    def close(self, number: int) -> None:
        """Close one.  Touches that wait for it continue."""
        os.close(self.fd(number))
        del self.fds[number]

    def read(self, number: int) -> list[bytes]:
        """Read the pending messages, each of 32 bytes; return an empty list if there are none."""
        try:
            data = os.read(self.fd(number), _MESSAGES_AT_ONCE * MESSAGE_SIZE)
        except BlockingIOError:
            return []
        return [data[at : at + MESSAGE_SIZE] for at in range(0, len(data), MESSAGE_SIZE)]
