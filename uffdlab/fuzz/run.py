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
    "caused_by_calls",
    "play",
    "play_randomly",
    "region_pages",
    "rules_of",
    "shrink",
]

_KHUGEPAGED: Final = "/sys/kernel/mm/transparent_hugepage/khugepaged"
_NEVER_MS: Final = (1 << 32) - 1
_CALLS_PER_REGION = 60  # calls on one region
_OWN_KERNEL: Final = frozenset({"qemu", "vagrant"})  # machines whose kernel is not shared with other programs
_ATTEMPTS = 3  # attempts to reproduce a disagreement


@dataclass(frozen=True)
class CallCount:
    """The number of calls that were made.

    Attributes
    ----------
    calls, regions : int
        The calls and regions that agreed with the model.
    unknown : int
        The regions that differed, perhaps because of other programs on this machine; see :func:`caused_by_calls`.
    """

    calls: int
    regions: int
    unknown: int = 0


def rules_of(lab: Lab, memory: str, *, events: bool = False, unpopulated: bool = False) -> Rules:
    """Return the rules of a kernel, found by trying.  This turns on a guest's swap, and turns off its khugepaged."""
    kind = MEMORY[memory]
    leave_out = {
        ioctl.random_call
        for ioctl in IOCTLS.values()
        if ioctl.random_call
        and (kind.has_alias or ioctl.random_call != "continue")  # for all kernels: there is no page cache
        and lab.capabilities.missing(ioctl.name)
    }
    if memory == "hugetlb-private" and not events and _fork_keeps_uffd_wp(lab):
        leave_out.add("fork")
    checks_destination = _checks_destination(lab, kind.hugetlb)
    if checks_destination is None:
        leave_out |= {"block_copy", "release_copy"}
    unpopulated = unpopulated and not lab.capabilities.missing("WP_UNPOPULATED")
    _prepare_guest(lab, huge=kind.unit > kind.page_size)
    return Rules(memory, events, unpopulated, frozenset(leave_out), checks_destination is not False)


def _prepare_guest(lab: Lab, *, huge: bool) -> None:
    # Turn its swap on and khugepaged off; the kernel of another machine stays as it is.
    if not _owns_kernel(lab):
        return
    with contextlib.suppress(UffdlabError):
        lab.ask(TurnSwapOn())  # MADV_PAGEOUT has no effect without swap
    if huge:
        lab.exec(["sh", "-c", f"echo {_NEVER_MS} >{_KHUGEPAGED}/scan_sleep_millisecs"])


def _owns_kernel(lab: Lab) -> bool:
    return lab.machine.name in _OWN_KERNEL


_CHECKS_DESTINATION: WeakKeyDictionary[Lab, dict[bool, bool | None]] = WeakKeyDictionary()


def _checks_destination(lab: Lab, hugetlb: bool) -> bool | None:
    # Whether a copy that waited notices that its destination is registered for other modes; None: it cannot wait.
    known = _CHECKS_DESTINATION.setdefault(lab, {})
    if hugetlb in known:
        return known[hugetlb]
    region = lab.map(pages=1, memory="hugetlb" if hugetlb else "anon")
    try:
        with lab.userfaultfd() as uffd:
            uffd.register(region, "missing", "wp")
            if "USER_MODE_ONLY" in uffd.way:  # then userfaultfd does not get faults of kernel mode
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
    """Make calls on a new region and read it at the end; return the number of calls that were made.

    Raises
    ------
    Mismatch
        The kernel and the model differ.  The error has all calls up to there.
    """
    with _player(lab, rules) as player:
        for op in ops:
            player.play(op)
        player.finish()
        return player.calls


def _player(lab: Lab, rules: Rules) -> Player:
    return Player(lab, rules, lambda memory: _rules_of_other(lab, rules, memory))


def _rules_of_other(lab: Lab, rules: Rules, memory: str) -> Rules:
    return rules_of(lab, memory, events=rules.events, unpopulated=rules.unpopulated)


def caused_by_calls(lab: Lab, found: Mismatch) -> bool:
    """Return whether the calls caused a disagreement; otherwise its cause is unknown.

    On a kernel that other programs use too, khugepaged and reclaim may change pages between two calls, and the lab must
    not turn them off (docs/findings/behind-the-back.md).  A disagreement that the calls cause happens again when they
    are repeated; one with another cause does not.  In a guest of the lab there are no other programs.
    """
    return _owns_kernel(lab) or any(_disagrees_again(lab, found) for _ in range(_ATTEMPTS))


def _disagrees_again(lab: Lab, found: Mismatch) -> bool:
    try:
        play(lab, found.rules, found.calls)
    except Mismatch as again:
        return again.calls == found.calls
    return False


def shrink(lab: Lab, found: Mismatch, seconds: float = 30.0) -> Mismatch:
    """Remove calls one by one as long as the kernel and the model still differ; return the mismatch that is left."""
    until, at = time.monotonic() + seconds, 0
    while at < len(found.calls) and time.monotonic() < until:
        try:
            play(lab, found.rules, [*found.calls[:at], *found.calls[at + 1 :]])
            at += 1
        except Mismatch as smaller:
            found = smaller
    return found


def play_randomly(lab: Lab, seconds: float, seed: int = 0, memories: Sequence[str] = MEMORIES) -> CallCount:
    """Make random calls for some time, with a new region now and then.

    Memory that this kernel does not have, or for which the guest has no huge pages, is skipped.  A disagreement that
    the calls did not cause, see :func:`caused_by_calls`, is counted as unknown.

    Raises
    ------
    Mismatch
        The kernel and the model differ.  The error has all calls up to there.
    """
    until = time.monotonic() + seconds
    calls = regions = unknown = tried = 0
    while time.monotonic() < until:
        rng = random.Random(seed + tried)  # noqa: S311 - to be repeated, not a secret
        memory = memories[tried % len(memories)]
        try:
            rules = rules_of(lab, memory, events=rng.random() < 0.3, unpopulated=rng.random() < 0.3)
            replacements = _replacements(lab, rules, memories)
            with _player(lab, rules) as player:
                for op in random_ops(rules, region_pages(memory), seed + tried, replacements):
                    if player.calls >= _CALLS_PER_REGION or time.monotonic() > until:
                        break
                    player.play(op)
                player.finish()
                calls += player.calls
            regions += 1
        except Mismatch as found:
            if caused_by_calls(lab, found):
                raise
            unknown += 1
            sys.stderr.write(f"{lab.kernel}, {memory}: unknown, since it did not happen again: {found.message}\n")
        except (AgentError, UsageError) as error:
            sys.stderr.write(f"{lab.kernel}, {memory}: {error}\n")
            if tried > 2 * len(memories) and not regions:
                raise
        tried += 1
    return CallCount(calls, regions, unknown)


def _replacements(lab: Lab, rules: Rules, memories: Sequence[str]) -> list[Rules]:
    # The memory that may replace a region; hugetlb only if the pool has pages.
    rules_of_others = []
    for memory in memories:
        with contextlib.suppress(AgentError, UsageError):
            rules_of_others.append(_rules_of_other(lab, rules, memory))
    return rules_of_others
