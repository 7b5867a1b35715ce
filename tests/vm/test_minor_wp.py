"""The effect of UFFDIO_CONTINUE_MODE_WP on each of the six kernels, read from the page tables."""

import errno

import pytest

from uffdlab.cli.demo import must_fail
from uffdlab.errors import IoctlError
from uffdlab.pte import State
from uffdlab.scenarios import minor_wp

pytestmark = pytest.mark.vm

PROTECTED = State.PRESENT | State.UFFD_WP
WITHOUT_THE_FLAG = ("6.1-base", "debian/bookworm")


def test_every_check_has_the_expected_result_on_each_kernel(any_lab):
    result = minor_wp(any_lab)
    assert len(result.checks) == 64
    wrong = [
        f"{check.name}: expected {check.expected}, observed {check.observed}"
        for check in result.checks
        if check.ok == must_fail(any_lab.kernel, check.name)
    ]
    assert not wrong


def test_continue_maps_the_published_numbers_of_pages(any_lab):
    """64 pages: 32 mapped by CONTINUE with WP, 16 by CONTINUE without it, the others untouched."""
    region = any_lab.map(pages=64)
    region.alias.fill()
    uffd = any_lab.userfaultfd()
    uffd.register(region, "minor", "wp")
    assert not region.snapshot().has(State.PRESENT).any()
    supported = any_lab.kernel not in WITHOUT_THE_FLAG
    assert any_lab.capabilities.continue_wp is supported
    if supported:
        assert uffd.continue_(region[:32], wp=True).done == 32 * 4096
    else:
        with pytest.raises(IoctlError, match="does not know UFFDIO_CONTINUE_MODE_WP") as caught:
            uffd.continue_(region[:32], wp=True)
        assert caught.value.errno == errno.EINVAL
    uffd.continue_(region[32:48])
    after = region.snapshot("physical")
    assert after.knows(State.PRESENT | State.WRITABLE | State.UFFD_WP).all()
    protected = after.has(PROTECTED) & after.lacks(State.WRITABLE)
    writable = after.has(State.PRESENT | State.WRITABLE) & after.lacks(State.UFFD_WP)
    absent = after.lacks(State.PRESENT) & after.lacks(State.UFFD_WP)
    assert protected.tolist() == [supported] * 32 + [False] * 32
    assert writable.tolist() == [False] * 32 + [True] * 16 + [False] * 16
    assert absent.tolist() == [not supported] * 32 + [False] * 16 + [True] * 16


@pytest.mark.parametrize("memory", ["shmem", "hugetlb"])
def test_witnesses_agree_on_every_known_bit(any_lab, memory):
    region = any_lab.map(pages=16, memory=memory)
    region.alias.fill()
    uffd = any_lab.userfaultfd()
    uffd.register(region, "minor", "wp")
    uffd.continue_(region[:4])
    uffd.writeprotect(region[2:6])  # present and absent pages: these get a marker
    region.read(0).result()
    region.write(1).result()
    examined = any_lab.cross_examine(region)
    assert not examined.disagreements, str(examined)
    for bit in (State.PRESENT, State.UFFD_WP):
        assert examined.compared[bit] == 16, f"{bit} was not compared on every page"
    state = region.snapshot()
    assert state.has(State.PRESENT).tolist() == [True] * 4 + [False] * 12
    assert state.has(State.UFFD_WP).tolist() == [False] * 2 + [True] * 4 + [False] * 10
    assert state.has(State.MARKER).tolist() == [False] * 4 + [True] * 2 + [False] * 10
    assert state.has(State.HUGE)[:4].tolist() == [memory == "hugetlb"] * 4
    # The alias maps the same page frames, without uffd-wp marks.
    alias = region.alias.snapshot()
    assert (alias.frames()[:4] == state.frames()[:4]).all()
    assert not alias.has(State.UFFD_WP).any()
    uffd.close()
    region.unmap()


def test_cross_examination_finds_a_wrong_entry(lab):
    """One bit of one entry is changed."""
    region = lab.map(pages=4)
    region.alias.fill()
    uffd = lab.userfaultfd()
    uffd.register(region, "minor", "wp")
    uffd.continue_(region, wp=True)
    original, changed = region.snapshot("physical"), region.snapshot("pagemap")
    entries = changed.entries.copy()
    entries[2] ^= 1 << 57  # uffd-wp
    from dataclasses import replace

    from uffdlab.observations.cross_examination import CrossExamination

    found = CrossExamination([original, replace(changed, entries=entries)]).disagreements
    assert [(disagreement.page, disagreement.bit) for disagreement in found] == [(2, State.UFFD_WP)]
