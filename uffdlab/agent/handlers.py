"""Native handlers: loops in C that resolve a userfaultfd's faults by a fixed policy."""

from __future__ import annotations

import mmap
import os

from uffdlab.agent import native
from uffdlab.agent.native import ffi, lib
from uffdlab.agent.rpc import Refusal
from uffdlab.uapi.layout import MESSAGE_SIZE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

POLICIES = {
    "forward": lib.LAB_FORWARD,
    "copy": lib.LAB_COPY,
    "copy_wp": lib.LAB_COPY_WP,
    "zeropage": lib.LAB_ZEROPAGE,
    "poison": lib.LAB_POISON,
    "continue": lib.LAB_CONTINUE,
    "continue_wp": lib.LAB_CONTINUE_WP,
    "unprotect": lib.LAB_UNPROTECT,
}
FAULTS = ("missing", "minor", "wp", "rwp")
_PRIVATE = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS


class Handler:
    """One loop, on a native thread, for one userfaultfd.

    Parameters
    ----------
    fd : int
        The userfaultfd. Stop the handler before closing it.
    policies : dict
        For each of :data:`FAULTS` a key of :data:`POLICIES`.
    page_size : int
    content : bytes
        What UFFDIO_COPY copies, at most a page. The rest of the page is zero.

    Attributes
    ----------
    messages_fd : int
        The read end of a pipe with the messages that no policy serves.
    """

    def __init__(self, fd: int, policies: dict[str, str], page_size: int, content: bytes) -> None:
        copied = ffi.from_buffer(content[:page_size])
        self._length = page_size
        self._source = native.map_memory(0, page_size, mmap.PROT_READ | mmap.PROT_WRITE, _PRIVATE, -1)
        self._pipe: list[int] = []
        try:
            lib.lab_poke(self._source, copied, len(copied))
            self._start(fd, policies)
        except BaseException:
            self._release()
            raise

    def _start(self, fd: int, policies: dict[str, str]) -> None:
        self._pipe = list(os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK))
        self.messages_fd, forward = self._pipe
        os.set_blocking(forward, True)
        self._native = ffi.new("struct lab_handler *")
        self._native.uffd = fd
        self._native.forward_fd = forward
        for fault in FAULTS:
            setattr(self._native, fault, POLICIES[policies.get(fault, "forward")])
        self._native.page_size = self._length
        self._native.source = self._source
        error = lib.lab_handler_start(self._native)
        if error:
            raise Refusal("usage", f"no thread for a handler: {os.strerror(-error)}")

    def counts(self) -> dict[str, Any]:
        """Return the counts so far. ``latency[i]`` faults took at most 2^i ns from being read to being resolved."""
        loop = self._native
        return {
            "served": dict(zip(FAULTS, list(loop.served), strict=True)),
            "forwarded": loop.forwarded,
            "failed": loop.failed,
            "last_errno": loop.last_error,
            "running": not loop.ended,
            "latency": list(loop.latency),
        }

    def read(self) -> list[bytes]:
        """Read the messages that no policy served; return an empty list if there are none."""
        try:
            data = os.read(self.messages_fd, 256 * MESSAGE_SIZE)
        except BlockingIOError:
            return []
        return [data[at : at + MESSAGE_SIZE] for at in range(0, len(data), MESSAGE_SIZE)]

    def stop(self) -> None:
        """End the loop. The messages that it has forwarded can still be read."""
        lib.lab_handler_stop(self._native)

    def close(self) -> dict[str, Any]:
        """Release the resources of a stopped loop and return its last counts."""
        counts = {**self.counts(), "running": False}
        self._release()
        return counts

    def _release(self) -> None:
        for end in self._pipe:
            os.close(end)
        native.unmap_memory(self._source, self._length)


def check(policies: dict[str, str], page_size: int, content: bytes) -> None:
    """Refuse unknown faults and policies, a page size that is none, and content that is not bytes."""
    if not isinstance(content, bytes):
        raise Refusal("usage", f"a handler copies bytes, not {type(content).__name__}")
    if page_size < mmap.PAGESIZE or page_size & (page_size - 1):
        raise Refusal("usage", f"page_size={page_size}: it must be a power of two, {mmap.PAGESIZE} or more")
    unknown = set(policies) - set(FAULTS) | set(policies.values()) - set(POLICIES)
    if unknown:
        raise Refusal("usage", f"no such fault or policy: {', '.join(sorted(unknown))}")
