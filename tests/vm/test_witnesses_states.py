"""Each state of a page in a real kernel: its name, its letter, and the agreement of all witnesses."""

import pytest

from uffdlab.errors import AgentError, IoctlError
from uffdlab.figures.palette import cell_style
from uffdlab.pte import State
from uffdlab.uapi import Feature

pytestmark = [pytest.mark.vm, pytest.mark.long]


def letters(snapshot):
    return [
        cell_style(state, known).letter
        for state, known in zip(snapshot.states.tolist(), snapshot.known.tolist(), strict=True)
    ]


def agreed_snapshot(lab, region):
    examined = lab.cross_examine(region)
    assert not examined.disagreements, str(examined)
    return region.snapshot("physical")


def protected(lab, region, *pages):
    uffd = lab.userfaultfd()
    try:
        uffd.register(region, "wp")
        for page in pages:
            uffd.writeprotect(region[page])
    except (IoctlError, AgentError) as error:
        uffd.close()
        pytest.skip(f"{lab.kernel}: {error}")
    return uffd


def test_swapped_pages_are_seen_with_and_without_uffd_wp(any_lab):
    region = any_lab.map(pages=4, memory="anon")
    region.fill(10)
    uffd = protected(any_lab, region, 1, 3)
    region.page_out()
    found = agreed_snapshot(any_lab, region)
    assert letters(found) == ["S", "SU", "S", "SU"]
    assert found.has(State.SWAPPED).all()
    assert not found.has(State.PRESENT).any()
    assert "swapped, uffd-wp" in str(found)
    assert [region.read(page).result() for page in range(4)] == [10, 11, 12, 13]
    assert letters(agreed_snapshot(any_lab, region))[1::2] == ["U", "U"]
    uffd.close()
    region.unmap()


def test_a_marker_of_uffd_wp_is_seen_as_such(any_lab):
    region = any_lab.map(pages=4)
    region.alias.fill()
    uffd = protected(any_lab, region, 1, 2)
    found = agreed_snapshot(any_lab, region)
    assert letters(found) == ["·", "M", "M", "·"]
    assert "marker, uffd-wp" in str(found)
    assert region.probe(1).trapped
    uffd.close()
    region.unmap()


def test_the_zero_page_is_seen_as_such(any_lab):
    region = any_lab.map(pages=3, memory="anon")
    region.read(0).result()
    region.write(1).result()
    found = agreed_snapshot(any_lab, region)
    assert letters(found) == ["Z", "W", "·"]
    assert found.has(State.SPECIAL).tolist() == [True, False, False]
    region.unmap()


def test_a_prot_none_page_is_seen_as_such(any_lab):
    region = any_lab.map(pages=2, memory="anon")
    region.fill()
    region[1].mprotect("")
    found = agreed_snapshot(any_lab, region)
    assert letters(found) == ["W", "N"]
    assert region.probe(1).refused == "SIGSEGV"
    region.unmap()


def test_a_poisoned_page_is_seen_as_such(any_lab):
    uffd = any_lab.userfaultfd()
    region = any_lab.map(pages=3)
    uffd.register(region, "missing")
    try:
        uffd.poison(region[1])
    except (IoctlError, AgentError) as error:
        uffd.close()
        region.unmap()
        pytest.skip(f"{any_lab.kernel} has no UFFDIO_POISON: {error}")
    found = agreed_snapshot(any_lab, region)
    assert letters(found) == ["·", "X", "·"]
    assert found.has(State.MARKER | State.POISON).tolist() == [False, True, False]
    assert region.probe(1).refused == "SIGBUS"
    uffd.close()
    region.unmap()


def test_a_guard_page_is_seen_as_such(any_lab):
    region = any_lab.map(pages=3, memory="anon")
    if not region[1].madvise("guard_install", check=False).ok:
        region.unmap()
        pytest.skip(f"{any_lab.kernel} has no MADV_GUARD_INSTALL")
    found = agreed_snapshot(any_lab, region)
    assert letters(found) == ["·", "G", "·"]
    assert region.probe(1).refused == "SIGSEGV"
    region.unmap()


def test_protecting_one_page_splits_a_huge_mapping(any_lab):
    region = any_lab.map(pages=1024, memory="thp")
    region.fill()
    found = agreed_snapshot(any_lab, region)
    if not found.has(State.HUGE).all():
        region.unmap()
        pytest.skip(f"{any_lab.kernel} gave no huge page")
    assert found.levels.tolist() == [2] * 1024
    assert region.walk(5)[0].leaf.name == "PMD"
    uffd = protected(any_lab, region, 5)
    split = agreed_snapshot(any_lab, region)
    assert split.lacks(State.HUGE)[:512].all()
    assert split.has(State.HUGE)[512:].all()
    assert (split.frames() == found.frames()).all()  # the same memory, in smaller entries
    assert split.has(State.UFFD_WP).tolist() == [page == 5 for page in range(1024)]
    assert region.walk(5)[0].leaf.name == "PTE"
    uffd.close()
    region.unmap()


@pytest.mark.parametrize("memory", ["anon", "shmem"])
def test_the_uffd_wp_bit_means_rwp_in_a_mapping_registered_for_rwp(any_lab, memory):
    try:
        uffd = any_lab.userfaultfd(Feature.RWP)
    except (IoctlError, AgentError) as error:
        pytest.skip(f"{any_lab.kernel} has no RWP: {error}")
    region = any_lab.map(pages=4, memory=memory)
    region.fill()
    uffd.register(region, "rwp")
    uffd.rwprotect(region[1:3])
    found = agreed_snapshot(any_lab, region)
    assert letters(found) == ["W", "R", "R", "W"]
    assert found.has(State.PROTNONE | State.UFFD_WP).tolist() == [False, True, True, False]
    assert region.probe(1).trapped
    assert region.probe(0).went_through
    uffd.close()
    region.unmap()
