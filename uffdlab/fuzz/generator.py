"""Random calls for the model and a kernel; the same seed generates the same calls."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import Final

from uffdlab.fuzz.memory import MINOR, MISSING, RWP, WP
from uffdlab.fuzz.rules import MEMORIES, Op, Rules, region_pages
from uffdlab.uapi import IOCTLS

#: All calls.
CALLS: Final = (
    *(ioctl.random_call for ioctl in IOCTLS.values() if ioctl.random_call),
    "read", "write", "kernel_read", "kernel_write",
    "dontneed", "remove", "page_out", "collapse", "mprotect", "mremap", "fork",
    "alias_read", "alias_write", "alias_remove", "block_copy", "release_copy",
)  # fmt: skip
# Calls that are made less often: they change many pages, or are slow.
_RARE: Final = frozenset({"register", "mremap", "fork", "collapse", "page_out", "wake"})
_MOVES: Final = frozenset(ioctl.random_call for ioctl in IOCTLS.values() if ioctl.moves)
_REPLACE_PROBABILITY: Final = 0.02  # of each call, when no copy waits
_REPLACE_PROBABILITY_WHILE_BLOCKED: Final = 0.1
_MOST_PAGES: Final = 4  # pages that calls are made on; in a region of huge pages, the last one is the last page


def calls_of(rules: Rules) -> tuple[str, ...]:
    """Return the calls that are possible with this memory and this kernel."""
    without = set(rules.leave_out)
    if not rules.file:
        without |= {"alias_read", "alias_write", "alias_remove"}
    if not rules.huge:
        without.add("collapse")
    return tuple(call for call in CALLS if call not in without)


def pages_used(pages: int) -> Sequence[int]:
    """Return the pages that calls are made on."""
    return range(pages) if pages <= _MOST_PAGES else (*range(_MOST_PAGES - 1), pages - 1)


def random_op(rng: random.Random, rules: Rules, pages: int) -> Op:
    """Return one random call."""
    calls = calls_of(rules)
    call = rng.choice(calls)
    if call in _RARE and rng.random() < 0.5:
        call = rng.choice(calls)
    page, mode_bit, dontwake = rng.choice(pages_used(pages)), rng.random() < 0.5, rng.random() < 0.25
    count = 1 if call == "block_copy" else rng.choice((1, 1, 2, 3))
    if call in ("register", "mprotect"):
        page, count = (0, pages) if rng.random() < 0.6 else (page, 1)
    value = rng.randrange(1, 1 << 32)
    if call == "register":
        value = rng.randrange(16) & (0xF if "rwprotect" in calls else 0x7)
    elif call in _MOVES:
        value = rng.choice(pages_used(pages))
    return Op(call, page, value, mode_bit, dontwake, count)


def register_all(rules: Rules, pages: int) -> Op:
    """Return the call that registers all pages for all modes that this memory can have together."""
    return Op("register", 0, int(MISSING | WP | (MINOR if rules.file else 0)), count=pages)


def random_ops(rules: Rules, pages: int, seed: int, others: Sequence[Rules] = ()) -> Iterator[Op]:
    """Yield calls without end; the same seed yields the same calls.

    Parameters
    ----------
    others : sequence of Rules
        The rules of the memory that may replace the region.
    """
    rng = random.Random(seed)  # noqa: S311 - to be repeated, not a secret
    # Mostly all pages are registered at the start.  If they are filled before, they may be huge pages.
    first = rng.random()
    if first < 0.7:
        yield register_all(rules, pages)
    elif first < 0.8 and "rwprotect" in calls_of(rules):
        yield Op("register", 0, int(RWP), count=pages)
    blocked = False  # it may be True although no copy waits: the model may have skipped block_copy
    while True:
        probability = _REPLACE_PROBABILITY
        if blocked:  # some kernels continue the copy into the other memory; then the model cannot predict the result
            probability = _REPLACE_PROBABILITY_WHILE_BLOCKED if rules.checks_destination else 0.0
        if others and rng.random() < probability:
            rules = rng.choice(others)
            pages = region_pages(rules.memory)
            yield Op("replace", 0, MEMORIES.index(rules.memory))
            if rng.random() < 0.7:
                yield register_all(rules, pages)
            continue
        op = random_op(rng, rules, pages)
        blocked = op.call == "block_copy" or (blocked and op.call != "release_copy")
        yield op
