"""UFFDIO_CONTINUE with and without UFFDIO_CONTINUE_MODE_WP, and all combinations with the other flags.

Each check states what a kernel with the flag must do.  On a kernel without it the checks fail; the result shows how.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from uffdlab import uapi
from uffdlab.errors import FaultUnresolved, NoMessage, errno_name
from uffdlab.pte import State
from uffdlab.scenarios.result import Group, Result

if TYPE_CHECKING:
    from uffdlab.lab import Lab
    from uffdlab.observations.snapshot import Snapshot
    from uffdlab.target.region import PageRange, Region
    from uffdlab.target.touch import Touch
    from uffdlab.target.userfaultfd import Userfaultfd

PAGES = {"shmem": 64, "hugetlb": 8}
_BITS = State.PRESENT | State.WRITABLE | State.UFFD_WP | State.MARKER | State.SWAPPED | State.POISON | State.GUARD
WRITABLE = "present, writable, not uffd-wp"
PROTECTED = "present, not writable, uffd-wp"
ABSENT = "absent"
_SOON = 0.3  # seconds to wait for a fault that should not come


def minor_wp(lab: Lab) -> Result:
    """Run the experiment for shmem and hugetlb.

    Parameters
    ----------
    lab : Lab
        The kernel under test.

    Returns
    -------
    Result
        It has the page groups and snapshots before and after, and the checks.
    """
    result = Result("minor_wp", lab.kernel, lab.release, lab.witnesses[0], timeline=lab.timeline)
    for memory in PAGES:
        _modes(lab, result, memory)
        _dontwake(lab, result, memory)
        _not_registered_for_wp(lab, result, memory)
        _copy(lab, result, memory)
    return result


def _modes(lab: Lab, result: Result, memory: str) -> None:
    """CONTINUE|WP on the first half, CONTINUE on the next quarter, nothing on the last."""
    region, uffd = _filled(lab, memory, "minor", "wp")
    half, quarter = region.pages // 2, region.pages // 4
    parts = {
        "CONTINUE|WP": region[:half],
        "CONTINUE": region[half : half + quarter],
        "nothing": region[half + quarter :],
    }
    before = region.snapshot()
    with_wp = uffd.continue_(parts["CONTINUE|WP"], wp=True, check=False)
    without = uffd.continue_(parts["CONTINUE"], check=False)
    after = region.snapshot()
    result.snapshots |= {f"{memory} before": before, f"{memory} after": after}

    result.check(f"{memory}: CONTINUE|WP", "ok", errno_name(with_wp.errno))
    result.check(f"{memory}: CONTINUE", "ok", errno_name(without.errno))
    for (done, part), expected in zip(parts.items(), (PROTECTED, WRITABLE, ABSENT), strict=True):
        was, now = _state_text(before, part), _state_text(after, part)
        result.groups.append(Group(memory, f"{part.first}–{part.first + part.count - 1}", done, was, now))
        result.check(f"{memory}: {part} before", ABSENT, was)
        result.check(f"{memory}: {part} after {done}", expected, now)
    disputes = lab.cross_examine(region).disagreements
    result.check(f"{memory}: bits on which witnesses differ", "0", str(len(disputes)))
    _write_traps(result, memory, region, uffd)
    uffd.close()
    region.unmap()


def _write_traps(result: Result, memory: str, region: Region, uffd: Userfaultfd) -> None:
    page = min(3, region.pages // 2 - 1)
    touch = region.write(page, 0xFEED)
    try:
        fault = uffd.read_fault(timeout=_SOON)
        observed = f"{touch.state}; write {_kind(fault.flags)} fault on page {fault.page}"
    except NoMessage:
        observed = f"{touch.state}; no fault"
    result.check(f"{memory}: write to page {page}", f"waiting; write wp fault on page {page}", observed)
    if touch.state == "waiting":
        uffd.writeprotect(region[page], wp=False, check=False)
        if touch.state == "waiting":  # it was not a write-protect fault: map the page
            uffd.continue_(region[page], check=False)
        touch.result()
    result.check(f"{memory}: page {page} after the write", WRITABLE, _state_text(region.snapshot(), region[page]))
    result.check(f"{memory}: content of page {page}", "0xfeed", hex(region.alias.read(page).result()))
    # A page that plain CONTINUE mapped takes a write without a fault.
    free = region.pages // 2
    touch = region.write(free, 0xBEEF)
    ended = _ends(touch)
    result.check(f"{memory}: write to page {free}", "no fault", "no fault" if ended else "waits")
    if not ended:
        touch.withdraw()


def _dontwake(lab: Lab, result: Result, memory: str) -> None:
    """DONTWAKE|WP must do both: map the page write-protected, and not wake the threads that wait."""
    region, uffd = _filled(lab, memory, "minor", "wp")
    touch = region.read(0)
    fault = uffd.read_fault()
    observed = f"{_kind(fault.flags)} fault on page {fault.page}"
    result.check(f"{memory}: read of page 0", "minor fault on page 0", observed)
    back = uffd.continue_(region[:2], wp=True, dontwake=True, check=False)
    result.check(f"{memory}: CONTINUE|DONTWAKE|WP", "ok", errno_name(back.errno))
    result.check(
        f"{memory}: pages 0–1 after CONTINUE|DONTWAKE|WP", PROTECTED, _state_text(region.snapshot(), region[:2])
    )
    result.check(f"{memory}: the reader after CONTINUE|DONTWAKE|WP", "waiting", touch.state)
    uffd.wake(region[0])
    if not back.ok:
        uffd.continue_(region[0], check=False)
    result.check(f"{memory}: page 0 after WAKE", "reads 0x1", f"reads {touch.result():#x}")
    back = uffd.continue_(region[2:4], dontwake=True, check=False)
    result.check(f"{memory}: CONTINUE|DONTWAKE", "ok", errno_name(back.errno))
    result.check(f"{memory}: pages 2–3 after CONTINUE|DONTWAKE", WRITABLE, _state_text(region.snapshot(), region[2:4]))
    uffd.close()
    region.unmap()


def _not_registered_for_wp(lab: Lab, result: Result, memory: str) -> None:
    """WP on a range that is registered only for MINOR must be refused, with any other flags."""
    region, uffd = _filled(lab, memory, "minor")
    for dontwake in (False, True):
        call = "CONTINUE|DONTWAKE|WP" if dontwake else "CONTINUE|WP"
        page = region[int(dontwake)]
        back = uffd.continue_(page, wp=True, dontwake=dontwake, check=False)
        result.check(f"{memory}: {call} not registered for WP", "EINVAL", errno_name(back.errno))
        result.check(f"{memory}: {page} after that", ABSENT, _state_text(region.snapshot(), page))
    uffd.close()
    region.unmap()


def _copy(lab: Lab, result: Result, memory: str) -> None:
    """COPY uses the same code: its behaviour must not change for any combination of flags."""
    region = lab.map(pages=4, memory=memory)
    uffd = lab.userfaultfd()
    uffd.register(region, "missing", "wp")
    for number, (wp, dontwake) in enumerate(((False, False), (False, True), (True, False), (True, True))):
        page = region[number]
        call = "COPY" + "|DONTWAKE" * dontwake + "|WP" * wp
        back = uffd.copy(page, b"uffdlab", wp=wp, dontwake=dontwake, check=False)
        result.check(f"{memory}: {call}", "ok", errno_name(back.errno))
        expected = PROTECTED if wp else WRITABLE
        result.check(f"{memory}: {page} after {call}", expected, _state_text(region.snapshot(), page))
    uffd.close()
    region.unmap()


def _filled(lab: Lab, memory: str, *modes: str) -> tuple[Region, Userfaultfd]:
    """Return a registered region whose pages are all in the page cache and not mapped."""
    region = lab.map(pages=PAGES[memory], memory=memory)
    region.alias.fill()
    uffd = lab.userfaultfd()
    uffd.register(region, *modes)
    return region, uffd


def _state_text(snapshot: Snapshot, part: PageRange) -> str:
    """Return present, writable and uffd-wp of the pages as text; if pages differ, the text has each value."""
    first = part.first - snapshot.first
    groups = snapshot[first : first + part.count].groups(_BITS)
    return " / ".join(dict.fromkeys(group.text for group in groups))


def _ends(touch: Touch[object]) -> bool:
    try:
        touch.result(_SOON)
    except FaultUnresolved:
        return False
    return True


def _kind(flags: uapi.FaultFlag) -> str:
    if flags & uapi.FaultFlag.WP:
        return "wp"
    return "minor" if flags & uapi.FaultFlag.MINOR else "missing"
