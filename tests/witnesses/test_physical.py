import contextlib
import itertools
import threading
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from uffdlab.errors import UsageError, WitnessError
from uffdlab.pte import MAPPING, State
from uffdlab.witnesses.physical import PhysicalWitness

NONCE = bytes(range(100, 116))
BEACON = 0x7FFF_1234_5040
FRAMES = 4096  # 16 MiB of guest RAM
PTE = 0x8000_0000_0000_0867  # NX, soft-dirty, dirty, accessed, user, writable, present
TABLE = 0x67
PSE = 1 << 7


class FakeMemory:
    """Guest RAM with page tables, as a processor reads them."""

    def __init__(self, levels=4, frames=FRAMES):
        self.cells = np.zeros((frames, 512), dtype=np.uint64)
        self.levels = levels
        self.next = 1
        self.root = self.take_frame()
        self.pauses = 0
        self.processor = threading.Lock()  # held for each step of the guest
        self.candidates = None
        data = self.take_frame()
        self.cells[data].view(np.uint8)[BEACON & 0xFFF :][: len(NONCE)] = np.frombuffer(NONCE, dtype=np.uint8)
        self.map(BEACON & ~0xFFF, data << 12 | PTE)

    def take_frame(self):
        self.next += 1
        return self.next - 1

    def slot(self, address, level):
        """Return (frame, index) of the entry of `level` for `address`; make the tables that are missing."""
        table = self.root
        for at in range(self.levels, level, -1):
            index = address >> (3 + 9 * at) & 511
            if not self.cells[table, index] & np.uint64(1):
                self.cells[table, index] = self.take_frame() << 12 | TABLE
            table = int(self.cells[table, index]) >> 12 & 0xFF_FFFF_FFFF
        return table, address >> (3 + 9 * level) & 511

    def map(self, address, entry, level=1):
        self.cells[self.slot(address, level)] = np.uint64(entry)

    # --- what the witness uses

    def ram(self):
        return self.cells, len(self.cells)

    def root_candidates(self):
        return self.candidates if self.candidates is not None else [(self.root << 12, self.levels)]

    @contextlib.contextmanager
    def paused(self):
        self.pauses += 1
        with self.processor:
            yield

    @contextlib.contextmanager
    def changing(self, *slots):
        """Change these entries in another thread all the time, except while the guest is paused."""
        stopped = threading.Event()

        def change():
            for slot in itertools.cycle(slots):
                with self.processor:
                    self.cells[slot] ^= np.uint64(1 << 52)
                if stopped.is_set():
                    break

        guest = threading.Thread(target=change)
        guest.start()
        try:
            yield
        finally:
            stopped.set()
            guest.join()


class Region:
    def __init__(self, start, pages, page_size=4096, name="region"):
        self.name, self.start, self.pages, self.page_size = name, start, pages, page_size


def witness(memory, **keywords):
    return PhysicalWitness(
        memory, (BEACON, NONCE), lambda _: contextlib.nullcontext(), kernel="fake", deadline=0.05, **keywords
    )


@pytest.mark.parametrize("levels", [4, 5])
def test_mapped_read_only_and_absent_pages_are_read(levels):
    memory = FakeMemory(levels)
    start = 0x7F00_0000_0000 - 3 * 4096  # across the end of a PTE, PMD, PUD table
    memory.map(start, 0x123 << 12 | PTE)
    memory.map(start + 4 * 4096, 0x8000_0000_0012_4C65)
    snapshot = witness(memory, now=lambda: 77).read(Region(start, 6), 0, 6)
    assert [str(group) for group in snapshot.groups(MAPPING)] == [
        "page 0: present, writable, not uffd-wp",
        "pages 1–3: absent",
        "page 4: present, not writable, uffd-wp",
        "page 5: absent",
    ]
    assert snapshot.frames().tolist() == [0x123, -1, -1, -1, 0x124, -1]
    assert (snapshot.witness, snapshot.kernel, snapshot.time_ns) == ("physical", "fake", 77)
    # Every walk ends in one of the two PTE tables, also at the empty entries beside pages 0 and 4.
    assert snapshot.levels.tolist() == [1] * 6


def test_a_range_of_the_region_keeps_its_page_numbers():
    memory = FakeMemory()
    for page in range(8):
        memory.map(0x10_0000_0000 + page * 4096, (page + 64) << 12 | PTE)
    snapshot = witness(memory).read(Region(0x10_0000_0000, 8), 2, 3)
    assert snapshot.start == 0x10_0000_2000
    assert list(snapshot.pages) == [2, 3, 4]
    assert snapshot.frames().tolist() == [66, 67, 68]


def test_a_huge_entry_is_repeated_for_all_its_small_pages():
    memory = FakeMemory()
    start = 0x20_0000_0000
    memory.map(start, 0x4000_0000 | PSE | PTE, level=2)
    memory.map(start + (1 << 30), 0x8000_0000 | PSE | PTE, level=3)
    snapshot = witness(memory).read(Region(start, (2 << 30) // 4096), 0, (2 << 30) // 4096)
    assert (snapshot.levels[:512] == 2).all()
    assert (snapshot.levels[512:1024] == 2).all()  # the empty PMD entry
    assert (snapshot.levels[1 << 18 :] == 3).all()
    assert snapshot.has(State.HUGE | State.PRESENT)[:512].all()
    assert snapshot.has(State.HUGE)[1 << 18 :].all()
    assert snapshot.lacks(State.PRESENT)[512 : 1 << 18].all()
    assert snapshot.frames()[[0, 1, 511, 1 << 18, (1 << 18) + 70000]].tolist() == [
        0x40000, 0x40001, 0x401FF, 0x80000, 0x80000 + 70000,
    ]  # fmt: skip


def test_hugetlb_pages_are_one_entry_each():
    memory = FakeMemory()
    start = 0x20_0000_0000
    memory.map(start, 0x4000_0000 | PSE | PTE, level=2)
    memory.map(start + (2 << 21), 0x4020_0000 | PSE | 0x8000_0000_0000_0C65, level=2)
    snapshot = witness(memory).read(Region(start, 4, 1 << 21), 0, 4)
    assert [group.text for group in snapshot.groups()] == [
        "present, writable, not uffd-wp, huge, dirty, accessed, soft-dirty",
        "absent",
        "present, not writable, uffd-wp, huge, dirty, accessed, soft-dirty",
        "absent",
    ]
    assert snapshot.frames().tolist() == [0x40000, -1, 0x40200, -1]


def test_a_table_under_a_huge_region_is_refused():
    memory = FakeMemory()
    memory.map(0x20_0020_0000, 0x5 << 12 | PTE)
    with pytest.raises(WitnessError, match="page 1 of region should be one entry"):
        witness(memory).read(Region(0x20_0000_0000, 2, 1 << 21), 0, 2)


@settings(max_examples=60, deadline=None)
@given(
    levels=st.sampled_from([4, 5]),
    base=st.integers(0, (1 << 47) // 4096 - 5000),
    mapped=st.dictionaries(st.integers(0, 4095), st.integers(1, (1 << 64) - 1), max_size=40),
    count=st.integers(0, 4096),
)
def test_any_entries_in_pte_tables_are_returned(levels, base, mapped, count):
    memory = FakeMemory(levels)
    beacon_page = BEACON >> 12
    for page, entry in mapped.items():
        if base + page != beacon_page:
            memory.map((base + page) << 12, entry)
    snapshot = witness(memory).read(Region(base << 12, 4096), 0, count)
    expected = np.zeros(count, dtype=np.uint64)
    for page, entry in mapped.items():
        if page < count and base + page != beacon_page:
            expected[page] = entry
    beacon_index = beacon_page - base
    if 0 <= beacon_index < count:
        expected[beacon_index] = snapshot.entries[beacon_index]
    assert snapshot.entries.tolist() == expected.tolist()
    assert (snapshot.levels >= 1).all()


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_hostile_tables_end_in_an_error_or_a_snapshot(data):
    """Cycles, frames outside RAM and random bits at every level: the read ends, with a snapshot or a WitnessError."""
    memory = FakeMemory(frames=64)
    start = 0x10_0000_0000
    memory.slot(start, 1)
    for _ in range(data.draw(st.integers(1, 6))):
        frame = data.draw(st.integers(memory.root, memory.next - 1))
        index = data.draw(st.integers(0, 511))
        # The entry points back to a table, or outside RAM.
        target = data.draw(st.one_of(st.integers(0, 80), st.integers(0, (1 << 52) - 1)))
        memory.cells[frame, index] = np.uint64(((target << 12) & ((1 << 64) - 1)) | data.draw(st.integers(0, 4095)))
    pages = data.draw(st.integers(1, 3000))
    began = time.monotonic()
    with contextlib.suppress(WitnessError):
        assert len(witness(memory).read(Region(start, pages), 0, pages)) == pages
    assert time.monotonic() - began < 60


def test_a_cycle_of_tables_is_read_to_the_bottom_and_no_further():
    memory = FakeMemory()
    memory.cells[memory.root, 2] = memory.root << 12 | TABLE  # a table that points to itself, at every level
    snapshot = witness(memory).read(Region(0x100_0000_0000, 600), 0, 600)
    assert len(snapshot) == 600


def test_frames_outside_ram_under_the_region_are_an_error():
    memory = FakeMemory()
    memory.cells[memory.slot(0x10_0000_0000, 2)] = FRAMES << 12 | TABLE
    with pytest.raises(WitnessError, match="is not RAM"):
        witness(memory).read(Region(0x10_0000_0000, 8), 0, 8)


# --- the page tables of the target


def test_the_root_is_the_candidate_that_maps_the_beacon():
    memory = FakeMemory()
    other = memory.take_frame()
    memory.cells[other, 3] = 0xFFFF_FFFF_F000 | TABLE
    busy_periods = []

    @contextlib.contextmanager
    def keep_busy(seconds):
        busy_periods.append(seconds)
        memory.candidates = [(FRAMES << 13, 4), (other << 12, 4), (memory.root << 12, 4)]
        yield
        memory.candidates = []

    physical = PhysicalWitness(memory, (BEACON, NONCE), keep_busy, deadline=0.5)
    for _ in range(3):
        physical.read(Region(0x1000, 1), 0, 1)
    assert busy_periods == [0.5]  # found once; after that it is only verified


def test_a_page_with_another_nonce_is_not_the_beacon():
    memory = FakeMemory()
    physical = PhysicalWitness(memory, (BEACON, bytes(16)), lambda _: contextlib.nullcontext(), deadline=0.02)
    with pytest.raises(WitnessError, match=r"none of the 1 page tables seen.*pagemap") as caught:
        physical.read(Region(0x1000, 1), 0, 1)
    assert caught.value.witness == "physical"


def test_no_candidate_for_the_top_table_is_an_error():
    memory = FakeMemory()
    memory.candidates = []
    with pytest.raises(WitnessError, match="none of the 0 page tables"):
        witness(memory).read(Region(0x1000, 1), 0, 1)


def test_an_unknown_paging_mode_is_named():
    memory = FakeMemory()
    memory.candidates = [(memory.root << 12, 3)]
    with pytest.raises(WitnessError, match="paging mode of 3 levels"):
        witness(memory).read(Region(0x1000, 1), 0, 1)


def test_a_processor_that_was_not_started_is_skipped():
    memory = FakeMemory()
    memory.candidates = [(0, 0), (memory.root << 12, 4)]
    assert len(witness(memory).read(Region(0x1000, 1), 0, 1)) == 1
    memory.candidates = [(0, 0)]
    with pytest.raises(WitnessError, match="none of the 0 page tables"):
        witness(memory).read(Region(0x1000, 1), 0, 1)


def test_a_beacon_in_a_huge_page_is_found():
    memory = FakeMemory()
    data = 1024
    memory.cells[data + (BEACON >> 12 & 511)].view(np.uint8)[BEACON & 0xFFF :][: len(NONCE)] = np.frombuffer(
        NONCE, dtype=np.uint8
    )
    memory.cells[memory.slot(BEACON, 2)] = data << 12 | PSE | PTE
    assert len(witness(memory).read(Region(0x1000, 1), 0, 1)) == 1


def test_after_the_target_ended_every_read_is_an_error():
    memory = FakeMemory()
    physical = witness(memory)
    physical.read(Region(0x1000, 1), 0, 1)
    memory.cells[memory.root] = 0
    with pytest.raises(WitnessError, match="may have ended"):
        physical.read(Region(0x1000, 1), 0, 1)


def test_a_target_that_ends_during_the_read_is_an_error():
    memory = FakeMemory()

    def end():
        memory.cells[memory.root] = 0
        return 1

    with pytest.raises(WitnessError, match="disappeared"):
        witness(memory, now=end).read(Region(0x10_0000_0000, 1), 0, 1)


@pytest.mark.parametrize("beacon", [(0x1000, b"short"), (0x1FF9, NONCE)])
def test_a_short_beacon_or_one_across_two_pages_is_refused(beacon):
    with pytest.raises(UsageError, match="beacon"):
        PhysicalWitness(FakeMemory(), beacon, lambda _: contextlib.nullcontext())


# --- consistency


def test_a_guest_whose_tables_do_not_change_is_not_paused():
    memory = FakeMemory()
    memory.map(0x10_0000_0000, PTE)
    witness(memory).read(Region(0x10_0000_0000, 2000), 0, 2000)
    assert memory.pauses == 0


@pytest.mark.parametrize("level", [1, 2])
def test_a_guest_whose_tables_keep_changing_is_paused_for_the_read(level):
    """One PTE table is read 4,096 times in a snapshot, so it changes between two of these reads."""
    memory = FakeMemory()
    start = 0x10_0000_0000
    memory.map(start, 0x123 << 12 | PTE)
    frame, _ = memory.slot(start, 1)
    for piece in range(4096):
        memory.map(start + (piece << 21), frame << 12 | TABLE, level=2)
    changing = [(frame, index) for index in range(1, 512)]
    if level == 2:
        changing = [memory.slot(start + (piece << 21), 2) for piece in range(4096)]
    physical = witness(memory)
    until = time.monotonic() + 60  # the other thread has to run during three reads in a row
    with memory.changing(*changing):
        while not memory.pauses and time.monotonic() < until:
            snapshot = physical.read(Region(start, 4096 * 512), 0, 4096 * 512)
    assert memory.pauses == 1
    assert snapshot.has(State.PRESENT).reshape(-1, 512)[:, 0].all()
    if level == 1:  # read while paused: every copy of the one table is the same
        assert (snapshot.entries.reshape(-1, 512) == snapshot.entries[:512]).all()


def test_changes_to_other_tables_do_not_disturb_a_read():
    memory = FakeMemory()
    start = 0x10_0000_0000
    memory.map(start, 0x123 << 12 | PTE)
    memory.map(start + (1 << 21), PTE)
    with memory.changing(memory.slot(start + (1 << 21), 1)):
        for _ in range(200):
            assert witness(memory).read(Region(start, 512), 0, 512).has(State.PRESENT).sum() == 1
    assert memory.pauses == 0


def test_the_snapshot_does_not_change_with_the_guest():
    memory = FakeMemory()
    start = 0x10_0000_0000
    memory.map(start, 0x123 << 12 | PTE)
    snapshot = witness(memory).read(Region(start, 4), 0, 4)
    memory.map(start, 0)
    assert snapshot.has(State.PRESENT)[0]


# --- bad input


@pytest.mark.parametrize("start", [-4096, 1 << 47, (1 << 47) - 4096, 0x1001])
def test_addresses_outside_user_space_are_refused(start):
    with pytest.raises(WitnessError, match="is not in user space"):
        witness(FakeMemory()).read(Region(start, 2), 0, 2)


def test_an_unknown_page_size_is_refused():
    with pytest.raises(UsageError, match="pages of 65536 bytes"):
        witness(FakeMemory()).read(Region(0, 2, 65536), 0, 2)
