"""Where kernels run: the interfaces of every machine.  :mod:`uffdlab.machines.qemu.start` starts the default one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, Self, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    import numpy as np

    from uffdlab.machines.rpc.client import MachineGone
    from uffdlab.uapi.protocol.base import Method
    from uffdlab.uapi.protocol.notifications import HelloFacts, Notification

_Answer = TypeVar("_Answer")

__all__ = ["Machine", "PhysicalMemory"]


class Machine(Protocol):
    """A running kernel with an agent that answers."""

    @property
    def name(self) -> str:
        """The kind of machine, for instance ``"qemu"``."""
        ...

    @property
    def hello(self) -> HelloFacts:
        """The facts of the agent's hello: ``release``, ``version``, ``cpus``, ``page_size`` …"""
        ...

    @property
    def physical(self) -> PhysicalMemory | None:
        """The guest's RAM, None if the host cannot read it."""
        ...

    def ask(self, request: Method[_Answer], *, deadline: float = 10.0) -> _Answer:
        """Send a request of :mod:`uffdlab.uapi.protocol` to the agent or the target, and return the answer.

        Raises
        ------
        AgentError
            The request was refused.
        ProtocolError
            The answer does not have the method's type.  The message names the field.
        MachineTimeout, GuestPanic, MachineLost
            There was no answer within `deadline` seconds, or there cannot be one.
        LabClosed
            The machine was closed.
        """
        ...

    def notify_to(self, callback: Callable[[Notification | MachineGone], None]) -> Callable[[], None]:
        """Call `callback` with each notification; return a function that unsubscribes it.

        It runs on the machine's reader thread and must not block.  The last notification is a
        :class:`~uffdlab.machines.rpc.client.MachineGone`, unless the machine was closed.
        """
        ...

    def console(self) -> str:
        """Return the guest's console output so far; of more than 1 MiB, the beginning and the end."""
        ...

    def close(self) -> None:
        """End the machine.  Closing a closed machine does nothing."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...


class PhysicalMemory(Protocol):
    """A guest's physical memory, and the addresses of its vCPUs' top page tables."""

    def ram(self) -> tuple[np.ndarray[Any, np.dtype[np.uint64]], int]:
        """Return a view of the RAM file, uint64[frames, 512], and how many of its frames lie below 4 GiB."""
        ...

    def read_frames(self, frame: int | np.ndarray[Any, Any]) -> np.ndarray[Any, np.dtype[np.uint64]]:
        """Return a copy of 4 KiB page frames, uint64[..., 512]; WitnessError for a frame that is not RAM."""
        ...

    def read(self, physical_address: int, size: int) -> bytes:
        """Return `size` bytes from a guest-physical address."""
        ...

    def root_candidates(self) -> list[tuple[int, int]]:
        """Return (physical address of the top page table, levels of paging or 0 if it is off) of each vCPU now."""
        ...

    def paused(self) -> AbstractContextManager[None]:
        """Stop the guest's CPUs within a ``with`` block."""
        ...
