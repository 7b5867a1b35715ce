"""Time UFFDIO_CONTINUE on several kernels, alternating in one run, so that other load on the host affects all alike."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from uffdlab.lab import Lab

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

PAGES = 1024
ROUNDS = 60


@dataclass(frozen=True)
class Timing:
    """The times of one way to call it, on each kernel.

    Attributes
    ----------
    way : str
    kernels : tuple of str
    rounds : tuple of tuple of float
        For each kernel the time for each page in each round, in ns of the guest's clock.
    """

    way: str
    kernels: tuple[str, ...]
    rounds: tuple[tuple[float, ...], ...]

    @property
    def fastest(self) -> tuple[float, ...]:
        """Each kernel's fastest round, in ns for each page; other load on the host can only add time."""
        return tuple(min(times) for times in self.rounds)

    @property
    def ratios(self) -> tuple[float, ...]:
        """Each kernel's fastest round divided by the first kernel's."""
        return tuple(time / self.fastest[0] for time in self.fastest)

    def __str__(self) -> str:
        parts = [f"{kernel} {time:.0f}" for kernel, time in zip(self.kernels, self.fastest, strict=True)]
        ratios = ", ".join(f"{ratio:.3f}" for ratio in self.ratios[1:])
        return f"{self.way}, ns per page: {', '.join(parts)}; ratio {ratios} (fastest of {len(self.rounds[0])} rounds)"


def time_continue(kernels: Sequence[str], pages: int = PAGES, rounds: int = ROUNDS) -> tuple[Timing, ...]:
    """Time UFFDIO_CONTINUE on shmem pages: one ioctl for all pages, and one ioctl for each page.

    Raises
    ------
    UffdlabError
        A kernel could not be built or booted, or an ioctl failed.
    """
    ways: dict[str, Callable[[Lab, int], int]] = {
        f"UFFDIO_CONTINUE, {pages} pages per ioctl": _at_once,
        "UFFDIO_CONTINUE, one page per ioctl": _each,
    }
    with contextlib.ExitStack() as stack:
        labs = [stack.enter_context(Lab(kernel)) for kernel in kernels]
        for way in ways.values():  # some things are slow only the first time
            for lab in labs:
                way(lab, pages)
        taken: dict[str, list[list[float]]] = {name: [[] for _ in labs] for name in ways}
        for number in range(rounds):
            for name, way in ways.items():
                turns = list(zip(labs, taken[name], strict=True))
                for lab, times in turns if number % 2 else reversed(turns):
                    times.append(way(lab, pages) / pages)
    return tuple(Timing(name, tuple(kernels), tuple(map(tuple, times))) for name, times in taken.items())


def _at_once(lab: Lab, pages: int) -> int:
    region = lab.map(pages=pages, memory="shmem")
    region.alias.fill()
    with lab.userfaultfd() as uffd:
        uffd.register(region, "minor")
        took = uffd.continue_(region).took_ns
    region.unmap()
    return took


def _each(lab: Lab, pages: int) -> int:
    region = lab.map(pages=pages, memory="shmem")
    region.alias.fill()
    with lab.userfaultfd() as uffd:
        uffd.register(region, "minor")
        took = uffd.batch("UFFDIO_CONTINUE", region).took_ns
    region.unmap()
    return took
