"""Every witness compared with the others, for memory types, modes and scenarios, and with falsified entries."""

import numpy as np
import pytest

from uffdlab.observations.cross_examination import CrossExamination
from uffdlab.pte import State, pagemap, x86
from uffdlab.scenarios import SCENARIOS, witness_audit

pytestmark = [pytest.mark.vm, pytest.mark.long]


def test_witnesses_agree_and_every_falsified_entry_is_found(any_lab):
    cases = list(witness_audit.examine(any_lab))
    assert witness_audit.table(cases).count(f"| {any_lab.kernel} |") == len(witness_audit.MEMORIES)
    assert len(cases) == len(witness_audit.MEMORIES) * len(witness_audit.MODES)
    assert not [each for case in cases for each in case.disagreements]
    examined = [case for case in cases if not case.refused]
    assert len(examined) >= len(cases) // 2
    for case in examined:
        assert case.falsified > 0, case
        assert case.caught == case.falsified, case


@pytest.mark.parametrize("scenario", SCENARIOS.values(), ids=SCENARIOS)
def test_witnesses_agree_on_every_snapshot_of_a_scenario(any_lab, scenario):
    """A scenario takes snapshots with the best witness.  Here all witnesses take each of them."""
    examinations = []
    snapshot = any_lab._target.snapshot

    def snapshot_by_all(pages, witness=None):
        if witness is None:
            examinations.append(CrossExamination([snapshot(pages, name) for name in any_lab.witnesses]))
        return snapshot(pages, witness)

    any_lab._target.snapshot = snapshot_by_all
    try:
        scenario(any_lab)
    finally:
        del any_lab._target.snapshot
    assert len(examinations) > 4
    assert not [str(each) for examination in examinations for each in examination.disagreements]


@pytest.mark.parametrize(
    ("module", "name", "wrong"),
    [
        (x86, "_X86_UFFD_WP", 9),
        (x86, "_X86_PRESENT", 1),
        (pagemap, "_PM_UFFD_WP", 56),
        (pagemap, "_PM_PRESENT", 62),
    ],
)
def test_cross_examination_finds_a_mutated_decoder(lab, monkeypatch, module, name, wrong):
    region = lab.map(pages=8)
    region.alias.fill()
    uffd = lab.userfaultfd()
    uffd.register(region, "minor", "wp")
    uffd.continue_(region[:3])
    uffd.continue_(region[3:5], wp=True)
    uffd.writeprotect(region[6])
    original = [region.snapshot("physical"), region.snapshot("pagemap")]
    assert CrossExamination(original).agree
    monkeypatch.setattr(module, name, wrong)
    monkeypatch.setattr(x86, "_X86_LOW", x86._x86_low_table())
    mutated = [region.snapshot("physical"), region.snapshot("pagemap")]
    found = CrossExamination(mutated).disagreements
    assert found
    assert all(each.first_entry or each.second_entry for each in found)  # both raw entries are recorded
    uffd.close()
    region.unmap()


def test_a_write_probe_finds_a_decoder_that_reads_writable_from_another_bit(lab, monkeypatch):
    region = lab.map(pages=4)
    region.alias.fill()
    uffd = lab.userfaultfd()
    uffd.register(region, "minor", "wp")
    uffd.continue_(region, wp=True)
    monkeypatch.setattr(x86, "_X86_RW", 2)  # the user bit
    monkeypatch.setattr(x86, "_X86_LOW", x86._x86_low_table())
    examined = lab.cross_examine(region, probe_writes=True)
    found = {(each.page, each.bit, each.second) for each in examined.disagreements if each.first == "physical"}
    assert found == {(page, State.WRITABLE, "write probe") for page in range(4)}
    uffd.close()
    region.unmap()


def test_repeated_snapshots_of_64_pages_are_equal(lab):
    region = lab.map(pages=64)
    region.alias.fill()
    uffd = lab.userfaultfd()
    uffd.register(region, "minor", "wp")
    uffd.continue_(region, wp=True)
    snapshots = [region.snapshot("physical") for _ in range(20)]
    assert all(np.array_equal(each.entries, snapshots[0].entries) for each in snapshots)
    uffd.close()
    region.unmap()
