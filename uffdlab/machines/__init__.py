"""Where kernels run: the interfaces that every machine has.  :mod:`uffdlab.machines.qemu.start` is the default one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, Self, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    import numpy as np

    from uffdlab.machines.rpc.client import MachineGone
    from uffdlab.uapi.protocol import HelloFacts, Method, Notification

_Answer = TypeVar("_Answer")

__all__ = ["Machine", "PhysicalMemory"]


class Machine(Protocol):
    """A running kernel with an agent that answers."""

    @property
    def name(self) -> str:
        """What sort of machine it is, ``"qemu"``."""
        ...

    @property
    def hello(self) -> HelloFacts:
        """What the agent said first: ``release``, ``version``, ``cpus``, ``page_size`` …"""
        ...

    @property
    def physical(self) -> PhysicalMemory | None:
        """The guest's RAM, None where the host cannot see it."""
        ...

    def ask(self, request: Method[_Answer], *, deadline: float = 10.0) -> _Answer:
        """Ask the agent or the target something of :mod:`uffdlab.uapi.protocol`, and return the answer.

        Raises
        ------
        AgentError
            What was refused.
        ProtocolError
            The answer is not of the method's shape; names the field.
        MachineTimeout, GuestPanic, MachineLost
            No answer within `deadline` seconds, or the reason why there will be none.
        LabClosed
            The machine was closed.
        """
        ...

    def notify_to(self, callback: Callable[[Notification | MachineGone], None]) -> Callable[[], None]:
        """Call `callback` with each notification; return what ends that.

        It runs on the machine's reader thread and must not wait.  The last one is a
        :class:`~uffdlab.machines.rpc.client.MachineGone`, unless the machine was closed.
        """
        ...

    def console(self) -> str:
        """Return what the guest's console has said so far; of more than 1 MiB, the beginning and the end."""
        ...

    def close(self) -> None:
        """End the machine.  Closing a closed machine does nothing."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...


class PhysicalMemory(Protocol):
    """A guest's physical memory, and where its vCPUs' page tables start."""

    def ram(self) -> tuple[np.ndarray[Any, np.dtype[np.uint64]], int]:
        """Return the RAM file as it lies, uint64[frames, 512], and how many of its frames lie below 4 GiB."""
        ...

    def words(self, frame: int | np.ndarray[Any, Any]) -> np.ndarray[Any, np.dtype[np.uint64]]:
        """Return a copy of 4 KiB page frames as words, uint64[..., 512]; WitnessError for a frame that is not RAM."""
        ...

    def read(self, physical_address: int, size: int) -> bytes:
        """Return `size` bytes from a guest-physical address on."""
        ...

    def root_candidates(self) -> list[tuple[int, int]]:
        """Return (physical address of the top page table, its levels: 0 while paging is off) of each vCPU now."""
        ...

    def paused(self) -> AbstractContextManager[None]:
        """Stop the guest's CPUs within a ``with`` block."""
        ...
