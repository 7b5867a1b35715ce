"""The physical witness in guests that are built otherwise: memory above 4 GiB, page-table isolation."""

import pytest

from uffdlab import kernels
from uffdlab.lab import Lab
from uffdlab.machines import initramfs, modules, qemu
from uffdlab.pte import State

pytestmark = [pytest.mark.vm, pytest.mark.long]

DEBIAN = "debian/bookworm"  # its configuration has page-table isolation


def check(lab, levels=4):
    region = lab.map(pages=16)
    region.alias.fill()
    uffd = lab.userfaultfd()
    uffd.register(region, "minor", "wp")
    uffd.continue_(region[:8])
    uffd.writeprotect(region[4:12])
    examined = lab.cross_examine(region)
    assert not examined.disagreements, str(examined)
    found = region.snapshot("physical")
    assert found.has(State.PRESENT | State.UFFD_WP).tolist() == [False] * 4 + [True] * 4 + [False] * 8
    assert found.has(State.WRITABLE).tolist() == [True] * 4 + [False] * 12
    walk = region.walk(0)[0]
    assert walk.levels == levels
    assert [entry.name for entry in walk.entries] == ["PGD", *(["P4D"] if levels == 5 else []), "PUD", "PMD", "PTE"]
    return found


def settings(kernel, **keywords):
    image = kernels.get(kernel)
    archive = initramfs.get(modules.beside(image.image))
    values = {"cpus": 1, "memory_mib": 1024, "append": "", **keywords}
    return qemu.Settings(qemu.find_program(), image.image, image.key, archive, "tcg", **values)


def test_page_table_isolation():
    """The processor's CR3 in user mode is then the half table, which maps all of user space."""
    machine = qemu._boot(settings(DEBIAN, append="pti=on"), 60)
    with Lab(DEBIAN, machine=machine) as lab:
        with lab._looking._spinning(5):
            # arch/x86/include/asm/pgtable.h, PTI_PGTABLE_SWITCH_BIT: the half for user mode lies one page further.
            halves = {address >> 12 & 1 for _ in range(50) for address, _ in machine.physical.root_candidates()}
        assert 1 in halves
        check(lab)


def test_memory_above_the_pci_hole():
    with Lab("6.1-series", memory_mib=4096) as lab:
        found = check(lab)
        assert (found.frames() >= 1 << 20).any()  # page frames from 4 GiB on
        walk = lab.map(pages=1).alias
        walk.fill()
        assert lab.walk(walk.start)[0].frame >= 1 << 20


def test_two_processors():
    with Lab("6.1-series", cpus=2) as lab:
        check(lab)


def test_two_labs_are_not_mistaken_for_each_other():
    with Lab("6.1-series") as one, Lab("6.1-series") as other:
        check(one)
        check(other)
        here, there = (lab.map(pages=2) for lab in (one, other))
        here.alias.fill()
        assert here.start == there.start
        assert here.alias.snapshot("physical").has(State.PRESENT).all()
        assert not there.alias.snapshot("physical").has(State.PRESENT).any()
