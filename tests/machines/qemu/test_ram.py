"""Guest RAM is read from its file, and the roots of page tables from the registers."""

import os
from contextlib import contextmanager

import numpy as np
import pytest

from uffdlab import errors
from uffdlab.machines.qemu import ram

FOUR_GIB_FRAME = (1 << 32) // 4096

# The output of `info registers -a` of QEMU 7.2, without the lines of other registers.
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
def test_ram_is_split_below_and_above_4_gib(size_mib, below_mib):
    assert ram.below_4g(size_mib << 20) == below_mib << 20


def test_the_roots_are_parsed_from_the_registers():
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
def test_the_paging_mode_is_parsed_from_the_registers(cr0, cr4, efer, levels):
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
def memory():
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


def test_frames_on_both_sides_of_the_hole(memory):
    last = FOUR_GIB_FRAME + (1024 << 20) // 4096 - 1
    frames = memory.read_frames(np.array([5, FOUR_GIB_FRAME, last]))
    assert frames.shape == (3, 512)
    assert frames.dtype == np.uint64
    for row, byte in zip(frames, (1, 2, 3), strict=True):
        assert (row == int.from_bytes(bytes([byte]) * 8, "little")).all()


@pytest.mark.parametrize("dtype", [np.int64, np.uint64, np.int32, np.uint32])
def test_a_frame_may_have_any_integer_type(memory, dtype):
    assert memory.read_frames(np.array([[5, 6]], dtype=dtype)).shape == (1, 2, 512)
    assert memory.read_frames(dtype(5))[0] == 0x0101010101010101
    assert memory.read_frames(5).shape == (512,)


def test_no_frames_are_an_empty_array(memory):
    assert memory.read_frames(np.array([], dtype=np.int64)).shape == (0, 512)


def test_read_frames_returns_a_copy(memory):
    copy = memory.read_frames(5)
    copy[:] = 0
    assert memory.read_frames(5)[0] != 0


@pytest.mark.parametrize(
    "frame", [2048 * 256, 0xFEE00, FOUR_GIB_FRAME - 1, FOUR_GIB_FRAME + 1024 * 256, 1 << 51, -1, [5, 0xFEE00]]
)
def test_frames_that_are_not_ram_are_refused(memory, frame):
    with pytest.raises(errors.WitnessError, match="is not RAM") as caught:
        memory.read_frames(np.array(frame))
    assert caught.value.witness == "physical"


def test_frames_that_are_not_integers_are_refused(memory):
    with pytest.raises(errors.UsageError):
        memory.read_frames(np.array([1.5]))


def test_bytes_are_read_and_invalid_ranges_are_refused(memory):
    assert memory.read((6 * 4096) - 3, 5) == b"\1\1\1\0\0"
    assert memory.read(1 << 32, 2) == b"\2\2"
    with pytest.raises(errors.WitnessError):
        memory.read((2048 << 20) - 1, 2)
    for address, size in ((0, 0), (0, -1), (-1, 1)):
        with pytest.raises(errors.UsageError):
            memory.read(address, size)


def test_roots_are_read_while_the_guest_is_paused(memory):
    assert memory.root_candidates() == [(0x1BFA000, 4), (0x103F0C000, 5)]
    assert memory._monitor.commands == ["stop", "info registers -a", "cont"]


def test_a_copy_is_valid_after_closing(memory):
    copy = memory.read_frames(5)
    memory.close()
    assert copy[0] == 0x0101010101010101


def test_a_truncated_file_is_an_error_and_no_sigbus():
    descriptor = os.memfd_create("test")
    os.ftruncate(descriptor, 4 << 20)
    truncated = ram.SharedMemory(descriptor, 4 << 20, Monitor(), lambda: None)
    assert truncated.ram()[0].shape == (1024, 512)
    os.ftruncate(descriptor, 1 << 20)
    os.close(descriptor)
    for read in (truncated.ram, lambda: truncated.read_frames(1000), lambda: truncated.read(0, 8)):
        with pytest.raises(errors.WitnessError, match="physical: the guest's RAM file was truncated from 4 to 1 MiB"):
            read()
    truncated.close()
    truncated.close()


def test_frames_in_use_are_valid_after_closing(memory):
    frames, _ = memory.ram()
    memory.close()
    assert frames[5][0] == 0x0101010101010101
