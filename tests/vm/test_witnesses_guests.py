"""The physical witness in other guests: memory above 4 GiB, page-table isolation, five levels."""

import os
import subprocess

import pytest

from uffdlab import kernels
from uffdlab.errors import MachineError, UffdlabError, WitnessError
from uffdlab.kernels import apt, progress
from uffdlab.lab import Lab
from uffdlab.machines.qemu import initramfs, kernel_modules, start
from uffdlab.machines.qemu.command import Settings
from uffdlab.pte import State
from uffdlab.uapi import Feature

pytestmark = [pytest.mark.vm, pytest.mark.long]

DEBIAN = "debian/bookworm"  # its configuration has page-table isolation


def assert_physical_works(lab, levels=4):
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
    archive = initramfs.get(kernel_modules.beside(image.image))
    values = {"cpus": 1, "memory_mib": 1024, "append": "", **keywords}
    return Settings(start.find_program(), image.image, image.key, archive, "tcg", **values)


def test_physical_works_with_page_table_isolation():
    """In user mode CR3 is then the top table for user mode, which maps all of user space."""
    machine = start._boot(settings(DEBIAN, append="pti=on"), 60)
    with Lab(DEBIAN, machine=machine) as lab:
        with lab._target.witnesses._spinning(5):
            # arch/x86/include/asm/pgtable.h, PTI_PGTABLE_SWITCH_BIT: the table for user mode is one page further.
            halves = {address >> 12 & 1 for _ in range(50) for address, _ in machine.physical.root_candidates()}
        assert 1 in halves
        assert_physical_works(lab)


def test_physical_reads_memory_above_the_pci_hole():
    with Lab("6.1-series", memory_mib=4096) as lab:
        found = assert_physical_works(lab)
        assert (found.frames() >= 1 << 20).any()  # page frames from 4 GiB on
        alias = lab.map(pages=1).alias
        alias.fill()
        assert lab.walk(alias.start)[0].frame >= 1 << 20


def test_physical_works_with_two_processors():
    with Lab("6.1-series", cpus=2) as lab:
        assert_physical_works(lab)


def test_physical_tells_two_labs_apart():
    with Lab("6.1-series") as one, Lab("6.1-series") as other:
        assert_physical_works(one)
        assert_physical_works(other)
        here, there = (lab.map(pages=2) for lab in (one, other))
        here.alias.fill()
        assert here.start == there.start
        assert here.alias.snapshot("physical").has(State.PRESENT).all()
        assert not there.alias.snapshot("physical").has(State.PRESENT).any()


class FiveLevels(start.Settings):
    """A processor with five levels of page tables."""

    @property
    def cpu(self):
        return super().cpu.replace("la57=off", "la57=on")


@pytest.fixture(scope="module")
def packaged_image(tmp_path_factory):
    """The packed kernel of Debian 13: the decompressor turns the fifth level on, the PVH entry does not."""
    root = tmp_path_factory.mktemp("apt")
    archive, suites = apt.DebianArchive(), ("trixie",)
    found = archive.resolve("linux-image-cloud-amd64", suites, root, progress.Silent())
    for deb in archive.download(found, suites, root, progress.Silent()):
        subprocess.run(["dpkg-deb", "-x", deb, root / "unpacked"], check=True, timeout=120)
    return next((root / "unpacked" / "boot").glob("vmlinuz-*"))


def test_physical_works_with_five_levels(packaged_image):
    usual = settings("debian/trixie")
    machine = start._boot(FiveLevels(**{**vars(usual), "image": packaged_image}), 120)
    with Lab("debian/trixie", machine=machine) as lab:
        with lab._target.witnesses._spinning(5):
            assert {levels for _, levels in machine.physical.root_candidates()} == {5}
        assert_physical_works(lab, levels=5)
        above = 1 << 55  # no address of user space with four levels
        assert [entry.name for entry in lab.walk(above)[0].entries] == ["PGD"]
        assert "no P4D table" in str(lab.walk(above)[0])
        with pytest.raises(WitnessError, match="not in user space, with 5 levels"):
            lab.walk(1 << 56)


def test_physical_ignores_a_processor_that_was_never_started():
    machine = start._boot(settings("6.1-series", cpus=2, append="maxcpus=1"), 60)
    with Lab("6.1-series", machine=machine) as lab:
        assert sorted(levels for _, levels in machine.physical.root_candidates()) == [0, 4]
        assert_physical_works(lab)


def test_physical_finds_each_of_several_targets():
    with Lab("6.1-series") as lab:
        for turn in range(3):
            region = lab.map(pages=4, memory="anon")
            region.fill(turn)
            assert region.snapshot("physical").has(State.PRESENT).all()
            assert not lab.cross_examine(region).disagreements
            lab.restart_target()


def test_physical_reads_a_stopped_target():
    with Lab("6.1-series") as lab:
        region = lab.map(pages=4, memory="anon")
        region.fill()
        first = region.snapshot("physical")
        lab.exec(["kill", "-STOP", str(lab.target_pid)])
        assert (region.snapshot("physical").entries == first.entries).all()
        lab.exec(["kill", "-CONT", str(lab.target_pid)])
        assert not lab.cross_examine(region).disagreements


def test_the_error_after_a_reboot_names_the_witness():
    with Lab("6.1-series") as lab:
        region = lab.map(pages=4, memory="anon")
        region.snapshot("physical")
        with pytest.raises(MachineError):
            lab.exec(["reboot", "-f"], deadline=20)
        for name in (None, "physical", "pagemap"):
            with pytest.raises(UffdlabError) as caught:
                region.snapshot(name)
            lines_of_error = [str(caught.value), *getattr(caught.value, "__notes__", [])]
            assert any((name or "physical") in line for line in lines_of_error), lines_of_error


def test_the_ram_file_cannot_be_truncated():
    with Lab("6.1-series") as lab:
        with pytest.raises(PermissionError):
            os.ftruncate(lab.machine._ram, 1 << 20)
        assert_physical_works(lab)


def test_a_page_of_1_gib_is_one_pud_entry():
    with Lab("6.1-series", memory_mib=5120) as lab:
        region = lab.map(pages=1, memory="hugetlb-1g")
        region.alias.write(0, 7).result(60)
        assert region.read(0).result(60) == 7
        found = region.snapshot("physical")
        assert found.levels.tolist() == [3]
        assert found.has(State.PRESENT | State.HUGE).all()
        examined = lab.cross_examine(region)
        assert not examined.disagreements, str(examined)
        walks = region.walk(0)
        assert [entry.name for entry in walks[0].entries] == ["PGD", "PUD"]
        assert walks.same_frame
        within = lab.walk(region.start + (5 << 21) + 0x3000)[0]
        assert within.frame == int(found.frames()[0]) + 5 * 512 + 3


def test_a_child_inherits_neither_the_registration_nor_uffd_wp():
    """So a probe must write in the target and never in a fork of it."""
    with Lab("6.1-series") as lab:
        region = lab.map(pages=2, memory="anon")
        region.fill()
        uffd = lab.userfaultfd(Feature(0))
        uffd.register(region, "wp")
        uffd.writeprotect(region)
        with lab.fork() as child:
            assert child.snapshot(region).lacks(State.UFFD_WP).all()
            region.write(0, by=child).result(10)
        assert region.probe(0).trapped
