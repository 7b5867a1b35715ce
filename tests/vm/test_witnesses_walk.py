"""Every witness of every kernel, and the walk from the top page table to a page."""

import numpy as np
import pytest

from uffdlab.errors import WitnessError
from uffdlab.pte import State
from uffdlab.uapi.protocol.agent import KillTarget
from uffdlab.uapi.protocol.target import UnmapMemory
from uffdlab.uapi.protocol.witnesses import ClearSoftDirty

pytestmark = pytest.mark.vm

WITH_SCAN = ("debian/trixie", "debian/trixie-backports")


def prepared(lab, memory="shmem", pages=16):
    region = lab.map(pages=pages, memory=memory)
    region.alias.fill()
    uffd = lab.userfaultfd()
    uffd.register(region, "minor", "wp")
    uffd.continue_(region[:4])
    uffd.writeprotect(region[2:6])
    return region, uffd


@pytest.mark.parametrize("memory", ["shmem", "hugetlb"])
def test_walks_of_a_page_and_its_alias_end_at_the_same_frame(any_lab, memory):
    region, uffd = prepared(any_lab, memory)
    walks = region.walk(3)
    here, alias = walks
    assert walks.same_frame
    assert here.frame == int(region.snapshot("physical").frames()[3])
    assert here.leaf.name == ("PTE" if memory == "shmem" else "PMD")
    assert State.UFFD_WP in here.states
    assert State.UFFD_WP not in alias.states
    assert here.what == f"page 3 of {region.name}"
    assert "alias" in alias.what
    marker = region.walk(5)[0]
    assert State.MARKER | State.UFFD_WP in marker.states
    assert not region.walk(5).same_frame
    uffd.close()
    region.unmap()


def test_the_witnesses_are_those_that_the_kernel_supports(any_lab):
    assert ("scan" in any_lab.witnesses) is (any_lab.kernel in WITH_SCAN)
    assert {"physical", "pagemap"} <= set(any_lab.witnesses)
    region = any_lab.map(pages=1)
    for name in {"kernel", "scan"} - set(any_lab.witnesses):
        with pytest.raises(WitnessError, match=f"{name}: this kernel has no") as caught:
            region.snapshot(name)
        assert caught.value.witness == name
    region.unmap()


def test_soft_dirty_is_known_once_it_was_cleared(lab):
    region, uffd = prepared(lab)
    assert not region.snapshot("pagemap").knows(State.SOFT_DIRTY).any()
    lab.ask(ClearSoftDirty())
    after = region.snapshot("pagemap")
    assert after.knows(State.SOFT_DIRTY).all()
    assert not after.has(State.SOFT_DIRTY)[:4].any()
    region.write(0).result()
    for name in lab.witnesses:
        assert region.snapshot(name).has(State.SOFT_DIRTY).tolist() == [True] + [False] * 15, name
    # Every page of the snapshot is soft-dirty, but the mapping is not.
    assert region[0].snapshot("pagemap").has(State.SOFT_DIRTY).all()
    new = lab.map(pages=1)  # a new mapping is soft-dirty again
    new.alias.fill()
    new.read(0).result()
    assert not new.snapshot("pagemap").knows(State.SOFT_DIRTY).any()
    assert not lab.cross_examine(region).disagreements
    assert not lab.cross_examine(new).disagreements
    uffd.close()
    region.unmap()
    new.unmap()


def test_a_snapshot_of_a_lost_region_is_refused(lab):
    region = lab.map(pages=2)
    alias = region.alias
    region.unmap()
    other = lab.map(pages=2)
    for mapping in (region, alias):
        for name in (None, *lab.witnesses):
            with pytest.raises(WitnessError, match="unmapped"):
                mapping.snapshot(name)
    lab.restart_target()
    for name in (None, *lab.witnesses):
        with pytest.raises(WitnessError, match="replaced by a new one"):
            other.snapshot(name)


def test_a_snapshot_of_a_mapping_unmapped_without_the_lab_is_refused(lab):
    region = lab.map(pages=4)
    region.alias.fill()
    lab.ask(UnmapMemory(region.number))
    with pytest.raises(WitnessError, match=r"pagemap.*not all mapped") as caught:
        region.snapshot("pagemap")
    assert caught.value.witness == "pagemap"


def test_a_snapshot_of_a_killed_target_is_refused(lab):
    region = lab.map(pages=4)
    lab.ask(KillTarget())
    for name in (None, *lab._target.witnesses._witnesses, "pagemap", "physical"):
        with pytest.raises(WitnessError):
            region.snapshot(name)
    lab.restart_target()


def test_the_next_witness_answers_if_the_best_one_fails(lab, monkeypatch):
    region, uffd = prepared(lab)
    witness = lab.witness("physical")

    def fail(*_):
        raise WitnessError("physical: the RAM file is too short", witness="physical")

    monkeypatch.setattr(witness, "read", fail)
    assert region.snapshot().witness in ("kernel", "pagemap")
    assert any("too short" in str(event) for event in lab.timeline)
    with pytest.raises(WitnessError, match="too short"):
        region.snapshot("physical")
    uffd.close()
    region.unmap()


def test_a_snapshot_of_a_paused_guest_is_of_one_moment(lab):
    region = lab.map(pages=4096, memory="anon")
    sweep = region.sweep("write")
    with lab.paused():
        one, other = (region.snapshot("physical") for _ in range(2))
        walk = region.walk(0)[0]
    assert np.array_equal(one.entries, other.entries)
    assert walk.leaf.value == int(one.entries[0])
    sweep.result(60)  # the sweep continues
    assert region.snapshot("physical").has(State.PRESENT).all()
    region.unmap()


def test_many_pagemap_entries_are_read_from_the_ram_of_the_guest(lab, monkeypatch):
    region = lab.map(pages=1 << 15, memory="anon")
    region[:300].fill()
    region.sweep("read").result(60)
    for clear in (False, True):
        if clear:
            lab.ask(ClearSoftDirty())
            region[:2].fill()
        assert not lab.cross_examine(region).disagreements
        found = region.snapshot("pagemap")
        assert np.array_equal(found.frames(), region.snapshot("physical").frames())
        assert bool(found.knows(State.SOFT_DIRTY).all()) is clear
    assert found.has(State.SOFT_DIRTY).sum() == 2

    def refuse(*_):
        raise WitnessError("physical: not in RAM", witness="physical")

    monkeypatch.setattr(lab.witness("physical"), "content", refuse)
    assert np.array_equal(region.snapshot("pagemap").entries, found.entries)
    region.unmap()
