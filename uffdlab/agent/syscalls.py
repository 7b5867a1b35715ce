"""System calls on a target's memory, made as touches: the kernel takes the faults or changes the mapping."""

from __future__ import annotations

import os

from uffdlab.agent import native
from uffdlab.agent.children import VALUE_FD, ForkedChild
from uffdlab.agent.native import ffi, lib
from uffdlab.agent.rpc import Refusal
from uffdlab.uapi.layout import LAYOUTS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from uffdlab.uapi.layout import Layout

_SIZE = 8


class Call:
    """A prepared system call, with the memory that it needs until it has ended.

    Attributes
    ----------
    number : int
        The number of the system call.
    arguments : list of int
        Six integers of 64 bits.
    """

    def __init__(
        self,
        number: int,
        arguments: list[int],
        *,
        fd: int = -1,
        value: Any = None,
        argument: tuple[Layout, Any] | None = None,
        buffers: tuple[Any, ...] = (),
    ) -> None:
        self.number, self.arguments = number, arguments
        self._fd, self._value, self._argument, self._buffers = fd, value, argument, buffers

    def value(self) -> int:
        """Return the 64 bits that the call has read from the page, 0 if it reads none."""
        if self._fd >= 0:
            return int.from_bytes(os.pread(self._fd, _SIZE, 0), "little")
        return int(self._value[0]) if self._value is not None else 0

    def fields(self) -> dict[str, int]:
        """Return the fields of an ioctl's argument after the call; an empty dict for any other call."""
        if self._argument is None:
            return {}
        ioctl, argument = self._argument
        return ioctl.unpack(bytes(ffi.buffer(argument, ioctl.size)))

    def close(self) -> None:
        """Close the file that the call used, if any."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def prepare(wanted: dict[str, Any], value: int, child: ForkedChild | None = None) -> Call:
    """Make the arguments of ``wanted["call"]``.

    ``file_read``, ``file_write``: pread(2) from or pwrite(2) to a file of our own, so that the kernel writes or reads
    the page at ``address``.  ``gup_read``, ``gup_write``: process_vm_readv/writev(2) on ourselves, which goes through
    get_user_pages; ``into`` is the address of the other buffer.  ``ioctl``: the ioctl ``name`` on the descriptor
    ``fd``, with its fields in ``fields``.  Anything else: a system call by name, with ``arguments``.
    """
    name = wanted["call"]
    if name == "ioctl":
        ioctl = LAYOUTS[wanted["name"]]
        argument = ffi.new("char[]", ioctl.pack(wanted["fields"]))
        arguments = _six(wanted["fd"], ioctl.request, int(ffi.cast("uintptr_t", argument)))
        return Call(_number(name), arguments, argument=(ioctl, argument))
    address = wanted.get("address", 0)
    if name in ("file_read", "file_write"):
        fd = native.memfd("touch", os.MFD_CLOEXEC) if child is None else os.dup(child.value_fd)
        try:
            os.pwrite(fd, value.to_bytes(_SIZE, "little"), 0)
            # Reading from the file writes to the page, and the other way round.
            number = _number("pread" if name == "file_read" else "pwrite")
            return Call(number, _six(fd if child is None else VALUE_FD, address, _SIZE, 0), fd=fd)
        except BaseException:
            os.close(fd)
            raise
    if name in ("gup_read", "gup_write"):
        if child is not None:
            raise Refusal("usage", "a child cannot make this touch; it can read, write and let the kernel do so")
        buffer = ffi.new("uint64_t *", value)
        local = wanted.get("into") or int(ffi.cast("uintptr_t", buffer))
        ours = ffi.new("uint64_t[2]", [local, _SIZE])  # struct iovec
        theirs = ffi.new("uint64_t[2]", [address, _SIZE])
        pointers = [int(ffi.cast("uintptr_t", each)) for each in (ours, theirs)]
        number = _number("process_vm_readv" if name == "gup_read" else "process_vm_writev")
        arguments = _six(os.getpid(), pointers[0], 1, pointers[1], 1, 0)
        return Call(number, arguments, value=buffer, buffers=(ours, theirs))
    return Call(_number(name), _six(*wanted.get("arguments", [])))


def _number(name: str) -> int:
    number: int = lib.lab_syscall_number(name.encode())
    if number < 0:
        raise Refusal("usage", f"the target cannot make the system call {name!r}")
    return number


def _six(*arguments: int) -> list[int]:
    return [argument & (1 << 64) - 1 for argument in (*arguments, 0, 0, 0, 0, 0, 0)][:6]
