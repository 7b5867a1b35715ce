"""Make random calls on a kernel, and compare each with a model of what it should do."""

from __future__ import annotations

import contextlib
import errno
import random
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from weakref import WeakKeyDictionary

from uffdlab.errors import AgentError, UffdlabError, UsageError
from uffdlab.fuzz.blocked_copy import BlockedCopy
from uffdlab.fuzz.generator import random_ops
from uffdlab.fuzz.player import Mismatch, Player
from uffdlab.fuzz.rules import MEMORIES, Op, Rules, region_pages
from uffdlab.pte import State
from uffdlab.uapi import IOCTLS
from uffdlab.uapi.memory import MEMORY
from uffdlab.uapi.protocol.agent import TurnSwapOn

if TYPE_CHECKING:
    from uffdlab.lab import Lab

__all__ = [
    "MEMORIES",
    "CallCount",
    "Mismatch",
    "is_known",
    "play",
    "play_randomly",
    "region_pages",
    "rules_of",
    "shrink",
]

_KHUGEPAGED: Final = "/sys/kernel/mm/transparent_hugepage/khugepaged"
_NEVER_MS: Final = (1 << 32) - 1
_A_ROUND = 60  # calls on one region
_OWN: Final = frozenset({"qemu", "vagrant"})  # machines whose kernel nobody else uses
_AGAIN = 3  # times that a disagreement is looked for again


@dataclass(frozen=True)
class CallCount:
    """How many calls were made.

    Attributes
    ----------
    calls, regions : int
        As the model says.
    unknown : int
        Regions more, in which something else on this machine may have had a hand; see :func:`is_known`.
    """

    calls: int
    regions: int
    unknown: int = 0


def rules_of(lab: Lab, memory: str, *, events: bool = False, unpopulated: bool = False) -> Rules:
    """Find out what the model has to know of a kernel, by trying; turns on a guest's swap, and its khugepaged off."""
    kind = MEMORY[memory]
    leave_out = {
        ioctl.random_call
        for ioctl in IOCTLS.values()
        if ioctl.random_call
        and (kind.has_alias or ioctl.random_call != "continue")  # the same answer everywhere: no page cache
        and lab.capabilities.missing(ioctl.name)
    }
    if memory == "hugetlb-private" and not events and _fork_keeps_uffd_wp(lab):
        leave_out.add("fork")
    compares = _compares(lab, kind.hugetlb)
    if compares is None:
        leave_out |= {"block_copy", "release_copy"}
    unpopulated = unpopulated and not lab.capabilities.missing("WP_UNPOPULATED")
    _make_steady(lab, huge=kind.unit > kind.page_size)
    return Rules(memory, events, unpopulated, frozenset(leave_out), compares is not False)


def _make_steady(lab: Lab, *, huge: bool) -> None:
    if not _is_own(lab):
        return
    with contextlib.suppress(UffdlabError):
        lab.ask(TurnSwapOn())  # MADV_PAGEOUT has no effect without
    if huge:
        lab.exec(["sh", "-c", f"echo {_NEVER_MS} >{_KHUGEPAGED}/scan_sleep_millisecs"])


def _is_own(lab: Lab) -> bool:
    return lab.machine.name in _OWN


_COMPARED: WeakKeyDictionary[Lab, dict[bool, bool | None]] = WeakKeyDictionary()


def _compares(lab: Lab, hugetlb: bool) -> bool | None:
    # Whether a copy that waited notices that its destination is registered for something else; None: it cannot wait.
    known = _COMPARED.setdefault(lab, {})
    if hugetlb in known:
        return known[hugetlb]
    region = lab.map(pages=1, memory="hugetlb" if hugetlb else "anon")
    try:
        with lab.userfaultfd() as uffd:
            uffd.register(region, "missing", "wp")
            if "USER_MODE_ONLY" in uffd.way:  # then the kernel's own faults are not handed to anyone
                known[hugetlb] = None
                return None
            copy = BlockedCopy(lab, uffd, region.start, region.page_size, 1, wp=False)
            uffd.unregister(region)
            uffd.register(region, "missing")
            known[hugetlb] = copy.release().errno == errno.EAGAIN
    finally:
        region.unmap()
    return known[hugetlb]


def _fork_keeps_uffd_wp(lab: Lab) -> bool:
    # A bug of 6.1: docs/findings/hugetlb-fork.md
    region = lab.map(pages=1, memory="hugetlb-private")
    try:
        region.fill()
        with lab.userfaultfd() as uffd:
            uffd.register(region, "wp")
            uffd.writeprotect(region)
            with lab.fork() as child:
                return bool(child.snapshot(region).has(State.UFFD_WP)[0])
    finally:
        region.unmap()


def play(lab: Lab, rules: Rules, ops: Iterable[Op]) -> int:
    """Play calls on a fresh region, and read it in the end; gives how many calls were made.

    Raises
    ------
    Mismatch
        At the first call that a kernel and the model do not agree on; has all that led to it.
    """
    with _player(lab, rules) as player:
        for op in ops:
            player.play(op)
        player.finish()
        return player.calls


def _player(lab: Lab, rules: Rules) -> Player:
    return Player(lab, rules, lambda memory: _rules_like(lab, rules, memory))


def _rules_like(lab: Lab, rules: Rules, memory: str) -> Rules:
    return rules_of(lab, memory, events=rules.events, unpopulated=rules.unpopulated)


def is_known(lab: Lab, found: Mismatch) -> bool:
    """Return whether a disagreement comes from the calls; otherwise its cause is unknown.

    On a kernel that others use too, khugepaged and reclaim may change pages between two calls, and neither is the lab's
    to turn off (docs/findings/behind-the-back.md).  What the calls do comes again when they are made again; what came
    of something else does not.  In a guest of the lab's own there is nobody else.
    """
    return _is_own(lab) or any(_parts_again(lab, found) for _ in range(_AGAIN))


def _parts_again(lab: Lab, found: Mismatch) -> bool:
    try:
        play(lab, found.rules, found.calls)
    except Mismatch as again:
        return again.calls == found.calls
    return False


def shrink(lab: Lab, found: Mismatch, seconds: float = 30.0) -> Mismatch:
    """Leave out one call after the other as long as a kernel and the model still disagree; gives what is left."""
    until, at = time.monotonic() + seconds, 0
    while at < len(found.calls) and time.monotonic() < until:
        try:
            play(lab, found.rules, [*found.calls[:at], *found.calls[at + 1 :]])
            at += 1
        except Mismatch as smaller:
            found = smaller
    return found


def play_randomly(lab: Lab, seconds: float, seed: int = 0, memories: Sequence[str] = MEMORIES) -> CallCount:
    """Play random calls for some time, on a fresh region every so often.

    Memory that this kernel has not, or the guest has no huge pages for, is passed over.  A disagreement that is not
    :func:`known <is_known>` to be the doing of the calls is counted as unknown.

    Raises
    ------
    Mismatch
        At the first call that a kernel and the model do not agree on; has all that led to it.
    """
    until = time.monotonic() + seconds
    calls = regions = unknown = tried = 0
    while time.monotonic() < until:
        chance = random.Random(seed + tried)  # noqa: S311 - to be repeated, not a secret
        memory = memories[tried % len(memories)]
        try:
            rules = rules_of(lab, memory, events=chance.random() < 0.3, unpopulated=chance.random() < 0.3)
            others = _others(lab, rules, memories)
            with _player(lab, rules) as player:
                for op in random_ops(rules, region_pages(memory), seed + tried, others):
                    if player.calls >= _A_ROUND or time.monotonic() > until:
                        break
                    player.play(op)
                player.finish()
                calls += player.calls
            regions += 1
        except Mismatch as found:
            if is_known(lab, found):
                raise
            unknown += 1
            sys.stderr.write(f"{lab.kernel}, {memory}: unknown, as it came once and not again: {found.said}\n")
        except (AgentError, UsageError) as error:
            sys.stderr.write(f"{lab.kernel}, {memory}: {error}\n")
            if tried > 2 * len(memories) and not regions:
                raise
        tried += 1
    return CallCount(calls, regions, unknown)


def _others(lab: Lab, rules: Rules, memories: Sequence[str]) -> list[Rules]:
    # What may take the place of a region; of hugetlb only where there are such pages.
    found = []
    for memory in memories:
        with contextlib.suppress(AgentError, UsageError):
            found.append(_rules_like(lab, rules, memory))
    return found
