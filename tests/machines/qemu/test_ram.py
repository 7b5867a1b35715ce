"""Where RAM is in its file, and what registers say."""

import os
from contextlib import contextmanager

import numpy as np
import pytest

from uffdlab import errors
from uffdlab.machines.qemu import ram

FOUR_GIB_FRAME = (1 << 32) // 4096

# As `info registers -a` of QEMU 7.2 prints it, but for lines of other registers.
CPU = """
CPU#{number}
RAX=0000000000000000 RBX=ffffffff81a12640
CR0={cr0:08x} CR2=00007f0b1a2c3000 CR3={cr3:016x} CR4={cr4:08x}
DR0=0000000000000000 DR1=0000000000000000
CCS=0000000000000000 CCD=0000000000000000 CCO=LOGICB
EFER={efer:016x}
FCW=037f FSW=0000 [ST=0] FTW=00 MXCSR=00001f80
"""
LONG = {"cr0": 0x80050033, "efer": 0xD01}
REGISTERS = CPU.format(number=0, cr3=0x1BFA801, cr4=0x6F0, **LONG) + CPU.format(
    number=1, cr3=0x103F0C000, cr4=0x1EF0, **LONG
)


@pytest.mark.parametrize(
    ("size_mib", "below_mib"), [(128, 128), (1024, 1024), (2815, 2815), (2816, 2048), (4096, 2048), (16384, 2048)]
)
def test_the_split(size_mib, below_mib):
    assert ram.below_4g(size_mib << 20) == below_mib << 20


def test_registers():
    assert ram.parse_roots(REGISTERS) == [(0x1BFA000, 4), (0x103F0C000, 5)]
    assert ram.parse_roots("") == []


@pytest.mark.parametrize(
    ("cr0", "cr4", "efer", "levels"),
    [
        (0x60000010, 0, 0, 0),  # after a reset
        (0x80000011, 0, 0, 2),
        (0x80000011, 0x20, 0x800, 3),
        (0x80050033, 0x6F0, 0xD01, 4),
        (0x80050033, 0x16F0, 0xD01, 5),
    ],
)
def test_paging_modes(cr0, cr4, efer, levels):
    registers = CPU.format(number=0, cr0=cr0, cr3=0x5000, cr4=cr4, efer=efer)
    assert ram.parse_roots(registers) == [(0x5000, levels)]


class Monitor:
    def __init__(self):
        self.commands = []

    @contextmanager
    def paused(self):
        self.commands.append("stop")
        yield
        self.commands.append("cont")

    def human(self, line):
        self.commands.append(line)
        return REGISTERS


@pytest.fixture
def large():
    # 3 GiB, sparse: one frame written below the hole and two above 4 GiB.
    descriptor = os.memfd_create("test")
    size = 3072 << 20
    os.ftruncate(descriptor, size)
    for at, byte in ((5 * 4096, b"\1"), (2048 << 20, b"\2"), (size - 4096, b"\3")):
        os.pwrite(descriptor, byte * 4096, at)
    found = ram.SharedMemory(descriptor, size, Monitor(), lambda: None)
    os.close(descriptor)
    yield found
    found.close()


def test_frames_on_both_sides_of_the_hole(large):
    last = FOUR_GIB_FRAME + (1024 << 20) // 4096 - 1
    frames = large.read_frames(np.array([5, FOUR_GIB_FRAME, last]))
    assert frames.shape == (3, 512)
    assert frames.dtype == np.uint64
    for row, byte in zip(frames, (1, 2, 3), strict=True):
        assert (row == int.from_bytes(bytes([byte]) * 8, "little")).all()


@pytest.mark.parametrize("dtype", [np.int64, np.uint64, np.int32, np.uint32])
def test_any_whole_number_is_a_frame(large, dtype):
    assert large.read_frames(np.array([[5, 6]], dtype=dtype)).shape == (1, 2, 512)
    assert large.read_frames(dtype(5))[0] == 0x0101010101010101
    assert large.read_frames(5).shape == (512,)


def test_no_frames(large):
    assert large.read_frames(np.array([], dtype=np.int64)).shape == (0, 512)


def test_what_is_read_is_a_copy(large):
    one = large.read_frames(5)
    one[:] = 0
    assert large.read_frames(5)[0] != 0


@pytest.mark.parametrize(
    "frame", [2048 * 256, 0xFEE00, FOUR_GIB_FRAME - 1, FOUR_GIB_FRAME + 1024 * 256, 1 << 51, -1, [5, 0xFEE00]]
)
def test_what_is_not_ram(large, frame):
    with pytest.raises(errors.WitnessError, match="is not RAM") as caught:
        large.read_frames(np.array(frame))
    assert caught.value.witness == "physical"


def test_frames_that_are_not_numbers(large):
    with pytest.raises(errors.UsageError):
        large.read_frames(np.array([1.5]))


def test_bytes(large):
    assert large.read((6 * 4096) - 3, 5) == b"\1\1\1\0\0"
    assert large.read(1 << 32, 2) == b"\2\2"
    with pytest.raises(errors.WitnessError):
        large.read((2048 << 20) - 1, 2)
    for address, size in ((0, 0), (0, -1), (-1, 1)):
        with pytest.raises(errors.UsageError):
            large.read(address, size)


def test_roots_are_read_while_the_guest_stands_still(large):
    assert large.root_candidates() == [(0x1BFA000, 4), (0x103F0C000, 5)]
    assert large._monitor.commands == ["stop", "info registers -a", "cont"]


def test_after_closing(large):
    copy = large.read_frames(5)
    large.close()
    assert copy[0] == 0x0101010101010101


def test_a_file_that_was_cut_short_is_an_error_and_no_sigbus():
    descriptor = os.memfd_create("test")
    os.ftruncate(descriptor, 4 << 20)
    short = ram.SharedMemory(descriptor, 4 << 20, Monitor(), lambda: None)
    assert short.ram()[0].shape == (1024, 512)
    os.ftruncate(descriptor, 1 << 20)
    os.close(descriptor)
    for use in (short.ram, lambda: short.read_frames(1000), lambda: short.read(0, 8)):
        with pytest.raises(errors.WitnessError, match="physical: the guest's RAM file was truncated from 4 to 1 MiB"):
            use()
    short.close()
    short.close()


def test_it_can_be_closed_while_somebody_reads(large):
    frames, _ = large.ram()
    large.close()
    assert frames[5][0] == 0x0101010101010101
