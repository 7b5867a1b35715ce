"""The native core as Python functions that raise OSError. native.h documents each."""

from __future__ import annotations

import os

from uffdlab.agent._native import ffi, lib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

__all__ = [
    "detached_tmpfs",
    "duplicate_mapping",
    "ffi",
    "insert_module",
    "ioctl",
    "lib",
    "madvise",
    "map_memory",
    "memfd",
    "mount",
    "pidfd_open",
    "pidfd_signal",
    "stream_pair",
    "swap_on",
    "unmap_memory",
    "userfaultfd",
]


def _raise(error: int, what: str) -> NoReturn:
    raise OSError(-error, f"{what}: {os.strerror(-error)}")


def ioctl(fd: int, request: int, argument: Any) -> tuple[int, int, int]:
    """Do an ioctl on a cffi buffer and return (errno, start, end). The times are CLOCK_MONOTONIC in ns."""
    times = ffi.new("int64_t[2]")
    error = lib.lab_ioctl(fd, request, argument, times, times + 1)
    return -error, times[0], times[1]


def userfaultfd(flags: int) -> int:
    """userfaultfd(2)."""
    fd: int = lib.lab_userfaultfd(flags)
    if fd < 0:
        _raise(fd, f"userfaultfd({flags:#x})")
    return fd


def memfd(name: str, flags: int) -> int:
    """memfd_create(2)."""
    fd: int = lib.lab_memfd(name.encode(), flags)
    if fd < 0:
        _raise(fd, f"memfd_create({name}, {flags:#x})")
    return fd


def detached_tmpfs(huge: str) -> int:
    """Make a detached tmpfs with the mount option `huge`, and return a descriptor of its root."""
    fd: int = lib.lab_detached_tmpfs(huge.encode())
    if fd < 0:
        _raise(fd, f"a tmpfs with huge={huge}")
    return fd


def map_memory(hint: int, length: int, protection: int, flags: int, fd: int) -> int:
    """mmap(2) from offset 0.  Returns the address, never a view of the memory."""
    address = ffi.new("uint64_t *")
    error = lib.lab_map(hint, length, protection, flags, fd, address)
    if error:
        _raise(error, f"mmap of {length} bytes")
    return int(address[0])


def duplicate_mapping(address: int, length: int, hint: int) -> int:
    """Map the pages of a shared mapping again, at `hint` if that is free; return the address."""
    duplicate = ffi.new("uint64_t *")
    error = lib.lab_duplicate_mapping(address, length, hint, duplicate)
    if error:
        _raise(error, f"a second mapping of {address:#x}")
    return int(duplicate[0])


def unmap_memory(address: int, length: int) -> None:
    """munmap(2)."""
    error = lib.lab_unmap(address, length)
    if error:
        _raise(error, f"munmap({address:#x}, {length})")


def madvise(address: int, length: int, advice: int) -> None:
    """madvise(2)."""
    error = lib.lab_madvise(address, length, advice)
    if error:
        _raise(error, f"madvise({address:#x}, {length}, {advice})")


def mount(kind: str, target: str, flags: int) -> None:
    """mount(2) of a file system without a device."""
    error = lib.lab_mount(kind.encode(), target.encode(), flags)
    if error:
        _raise(error, f"mount {kind} on {target}")


def insert_module(fd: int) -> None:
    """finit_module(2), without parameters."""
    error = lib.lab_insert_module(fd)
    if error:
        _raise(error, "finit_module")


def stream_pair() -> tuple[int, int]:
    """socketpair(2): two descriptors of one stream, close-on-exec."""
    pair = ffi.new("int[2]")
    error = lib.lab_stream_pair(pair)
    if error:
        _raise(error, "socketpair")
    return pair[0], pair[1]


def pidfd_open(pid: int) -> int:
    """pidfd_open(2)."""
    fd: int = lib.lab_pidfd_open(pid)
    if fd < 0:
        _raise(fd, f"pidfd_open({pid})")
    return fd


def pidfd_signal(pidfd: int, number: int) -> None:
    """pidfd_send_signal(2)."""
    error = lib.lab_pidfd_signal(pidfd, number)
    if error:
        _raise(error, f"pidfd_send_signal({number})")


def swap_on(disk: bytes) -> None:
    """swapon(2)."""
    error = lib.lab_swap_on(disk)
    if error:
        _raise(error, f"swapon({os.fsdecode(disk)})")
