"""Random calls on a kernel, each held against a model of what it should do:  python -m uffdlab.random_calls KERNEL."""

from __future__ import annotations

import argparse
import errno
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from uffdlab.errors import UffdlabError
from uffdlab.page_model import MEMORIES, Model, Op, random_ops
from uffdlab.pte import State
from uffdlab.uapi import RegisterMode

if TYPE_CHECKING:
    from uffdlab.ioctls import IoctlResult
    from uffdlab.lab import Lab
    from uffdlab.mapping_calls import CallResult
    from uffdlab.touch import Touch

PAGES = 4
_A_ROUND = 60  # calls on one region
_BOTH_LOOK = 4  # calls until the best witness looks too, not only pagemap, which is the quickest and knows no writable


class Disagreement(UffdlabError):
    """A kernel did something else than the model.

    Attributes
    ----------
    trail : tuple of Op
        What was called on a fresh region, the last one being where they part.
    """

    def __init__(self, message: str, trail: Sequence[Op]) -> None:
        steps = "\n".join(f"  {op}" for op in trail)
        super().__init__(f"{message}, after\n{steps}")
        self.trail = tuple(trail)


@dataclass(frozen=True)
class Count:
    """How many calls were made on how many regions."""

    calls: int
    regions: int


class Player:
    """One region and its model; plays calls on both.  Also a context manager that unmaps the region.

    Parameters
    ----------
    lab : Lab
    memory : str
        One of :data:`uffdlab.page_model.MEMORIES`.
    pages : int
    """

    def __init__(self, lab: Lab, memory: str, pages: int = PAGES) -> None:
        self._region = lab.map(pages=pages, memory=memory)
        self._uffd = lab.userfaultfd()
        self._model = Model(memory, pages)
        self._trail: list[Op] = []

    def play(self, op: Op) -> None:
        """Make one call, and look at every page afterwards.

        Raises
        ------
        Disagreement
            If it came back with something else than the model, or left something else.
        """
        self._trail.append(op)
        expected, got = self._model.apply(op), self._do(op)
        if expected != got:
            raise Disagreement(f"{op} should give {expected!r} and gave {got!r}", self._trail)
        self._compare(op, "pagemap")
        if len(self._trail) % _BOTH_LOOK == 0:
            self._compare(op, None)

    def _compare(self, op: Op, witness: str | None) -> None:
        seen = self._region.snapshot(witness)
        found = zip(seen.has(State.PRESENT), seen.has(State.UFFD_WP), seen.has(State.WRITABLE), strict=True)
        for number, (page, (present, wp, writable)) in enumerate(zip(self._model.pages, found, strict=True)):
            if page.mapped is None:
                page.mapped = bool(present)
            if (page.mapped, page.wp) != (present, wp) or (writable and (wp or not page.writable)):
                raise Disagreement(
                    f"after {op} page {number} should be {page}; {seen.witness} saw present={bool(present)}, "
                    f"uffd_wp={bool(wp)}, writable={bool(writable)}",
                    self._trail,
                )

    def _do(self, op: Op) -> str:
        if op.call in ("read", "write"):
            return self._touched(op)
        if op.call == "register":
            return self._registered(op)
        page, uffd = self._region[op.page], self._uffd
        alias = self._region.alias if self._model.shmem else self._region
        calls: dict[str, Callable[[], IoctlResult | CallResult]] = {
            "copy": lambda: uffd.copy(
                page, op.value.to_bytes(8, "little"), wp=op.flag, dontwake=op.dontwake, check=False
            ),
            "zeropage": lambda: uffd.zeropage(page, dontwake=op.dontwake, check=False),
            "continue": lambda: uffd.continue_(page, wp=op.flag, dontwake=op.dontwake, check=False),
            "protect": lambda: uffd.writeprotect(page, wp=op.flag, dontwake=op.dontwake, check=False),
            "poison": lambda: uffd.poison(page, dontwake=op.dontwake, check=False),
            "dontneed": lambda: page.madvise("dontneed", check=False),
            "mprotect": lambda: page.mprotect("rw" if op.flag else "r", check=False),
            "alias_remove": lambda: alias[op.page].madvise("remove", check=False),
        }
        if op.call in calls:
            return _name(calls[op.call]().errno)
        touch = alias.read(op.page) if op.call == "alias_read" else alias.write(op.page, op.value)
        return _ended(touch)

    def _registered(self, op: Op) -> str:
        page = self._region[op.page]
        self._uffd.unregister(page)
        return _name(self._uffd.register(page, RegisterMode(op.value), check=False).errno) if op.value else "ok"

    def _touched(self, op: Op) -> str:
        # A fault is looked at and the access taken back, so it changes nothing.
        page = self._region[op.page]
        touch = page.read() if op.call == "read" else page.write(0, op.value)
        while touch.state == "running":
            time.sleep(0.001)
        if touch.state == "waiting":
            fault = self._uffd.read_fault()
            touch.withdraw()
            kind = next(name for name in ("wp", "minor", "missing") if getattr(fault, name))
            as_asked = fault.page == op.page and fault.write == (op.call == "write")
            return f"fault {kind}" if as_asked else f"{fault}"
        return _ended(touch)

    def close(self) -> None:
        """Unmap the region and close the userfaultfd."""
        self._uffd.close()
        self._region.unmap()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def play(lab: Lab, memory: str, ops: Iterable[Op]) -> None:
    """Play calls on a fresh region; raises :class:`Disagreement`."""
    with Player(lab, memory) as player:
        for op in ops:
            player.play(op)


def play_randomly(lab: Lab, seconds: float, seed: int = 0, memories: Sequence[str] = MEMORIES) -> Count:
    """Play random calls for some time, on a fresh region every so often.

    Raises
    ------
    Disagreement
        At the first call that a kernel and the model do not agree on; has all that led to it.
    """
    until = time.monotonic() + seconds
    poison = not lab.capabilities.missing("UFFDIO_POISON")
    calls = regions = 0
    while time.monotonic() < until:
        memory = memories[regions % len(memories)]
        with Player(lab, memory) as player:
            for made, op in enumerate(random_ops(memory, PAGES, seed + regions, poison=poison)):
                if made == _A_ROUND or time.monotonic() > until:
                    break
                player.play(op)
                calls += 1
        regions += 1
    return Count(calls, regions)


def _ended(touch: Touch) -> str:
    end = touch.outcome()
    return end.signal or (f"= {end.value}" if touch.kind == "read" else "ok")


def _name(error: int) -> str:
    return errno.errorcode.get(error, str(error)) if error else "ok"


def main(arguments: Sequence[str] | None = None) -> int:
    """Play on a kernel; 0 if it and the model agree, 1 if not."""
    from uffdlab.lab import Lab  # noqa: PLC0415 - not for --help

    parser = argparse.ArgumentParser(prog="python -m uffdlab.random_calls", description=__doc__)
    parser.add_argument("kernel")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args(arguments)
    with Lab(asked.kernel) as lab:
        try:
            count = play_randomly(lab, asked.seconds, asked.seed)
        except Disagreement as found:
            sys.stdout.write(f"{asked.kernel}: {found}\n")
            return 1
    sys.stdout.write(f"{asked.kernel}: {count.calls} calls on {count.regions} regions as they should be\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
