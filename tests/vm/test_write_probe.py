"""Write probes: writes that change no content."""

from dataclasses import replace

import pytest

from uffdlab.errors import NoMessage
from uffdlab.observations.cross_examination import CrossExamination
from uffdlab.pte import State
from uffdlab.uapi.protocol.witnesses import ClearSoftDirty

pytestmark = pytest.mark.vm


@pytest.fixture
def probed(lab):
    """Pages 0 and 1 mapped, 2 and 3 mapped and write-protected, the rest only in the page cache."""
    region = lab.map(pages=6)
    region.alias.fill(100)
    uffd = lab.userfaultfd()
    uffd.register(region, "minor", "wp")
    uffd.continue_(region[:2])
    uffd.continue_(region[2:4], wp=True)
    yield region, uffd
    uffd.close()
    region.unmap()


def test_a_probe_that_faults_is_withdrawn_and_leaves_no_message(probed):
    region, uffd = probed
    before = region.snapshot()
    for page in (2, 5):
        probe = region.probe(page)
        assert probe.trapped
        assert not probe.difference
    assert region.probe(2).fault.wp
    assert region.probe(5).fault.minor
    with pytest.raises(NoMessage):
        uffd.read_fault(timeout=0.05)
    assert not region.snapshot() - before
    assert region.alias.read(2).result() == 102


def test_a_probe_that_succeeds_reports_what_it_changed(probed):
    region, _ = probed
    region.lab.ask(ClearSoftDirty())
    probe = region.probe(1)
    assert probe.went_through
    assert probe.before.lacks(State.SOFT_DIRTY)[0]
    assert probe.after.has(State.SOFT_DIRTY | State.DIRTY)[0]
    assert not probe.copied
    assert region.alias.read(1).result() == 101


def test_a_probe_reports_a_copy_on_write(lab):
    region = lab.map(pages=2, memory="shmem-private")
    region.alias.fill(7)
    region.read(0).result()
    probe = region.probe(0)
    assert probe.went_through
    assert probe.copied
    if (probe.after.frames() >= 0).all():  # an unprivileged user sees none
        assert "another page frame" in str(probe)
    region.unmap()


def test_a_probe_that_the_kernel_refuses_is_not_a_fault_message(lab):
    region = lab.map(pages=2, memory="anon")
    region.fill()
    region.mprotect("r")
    probe = region.probe(0)
    assert probe.refused == "SIGSEGV"
    assert not probe.trapped
    assert not lab.cross_examine(region, probe_writes=True).disagreements
    region.unmap()


def test_a_probe_keeps_the_message_of_another_fault(probed):
    region, uffd = probed
    touch = region.read(4)
    assert region.probe(3).trapped
    fault = uffd.read_fault()
    assert fault.page == 4
    uffd.continue_(region[4])
    assert touch.result() == 104


def test_a_write_probe_finds_a_wrong_writable_bit(probed):
    region, _ = probed
    original = region.snapshot("physical")
    probes = [region.probe(page) for page in range(6)]
    assert CrossExamination([original], probes).agree
    entries = original.entries.copy()
    entries[2] = entries[2] ^ 1 << 10 | 2
    found = CrossExamination([replace(original, entries=entries)], probes).disagreements
    assert [(disagreement.page, disagreement.bit) for disagreement in found] == [(2, State.WRITABLE)]
