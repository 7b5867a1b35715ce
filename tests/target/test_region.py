import pytest
from hypothesis import given
from hypothesis import strategies as st

from uffdlab.errors import UsageError
from uffdlab.target.region import MemoryMapping, Region, pages_of
from uffdlab.target.timeline import Timeline

PAGE = 4096


class RecordingTarget:
    """A target that records what a mapping asks of it."""

    def __init__(self):
        self.asked = []
        self.timeline = Timeline()

    def snapshot(self, where, witness):
        self.asked.append(("snapshot", where.first, where.count, witness))

    def touch(self, kind, address, what, **rest):
        self.asked.append((kind, address, what, rest))


@pytest.fixture
def region():
    return Region(RecordingTarget(), 1, "shmem", 0x10_0000_0000, 0x20_0000_0000, 64, PAGE)


@given(st.integers(1, 500), st.data())
def test_an_index_selects_the_same_page_as_in_a_python_range(pages, data):
    mapping = MemoryMapping(RecordingTarget(), "m", 0x1000, pages, PAGE)
    page = data.draw(st.integers(-pages, pages - 1))
    part = mapping[page]
    assert (part.first, part.count) == (range(pages)[page], 1)
    assert part.start == 0x1000 + part.first * PAGE
    assert part.length == PAGE
    assert mapping.page_of(part.start) == mapping.page_of(part.start + PAGE - 1) == part.first


@given(st.integers(1, 500), st.data())
def test_a_slice_selects_the_same_pages_as_in_a_python_range(pages, data):
    mapping = MemoryMapping(RecordingTarget(), "m", 0, pages, PAGE)
    first = data.draw(st.integers(0, pages - 1))
    stop = data.draw(st.integers(first + 1, pages))
    part = mapping[first:stop]
    assert list(range(part.first, part.first + part.count)) == list(range(pages))[first:stop]


@pytest.mark.parametrize("bad", ["3", 1.0, None, (1, 2)])
def test_an_index_of_another_type_is_refused(region, bad):
    with pytest.raises(UsageError, match=r"region\[3\],? (or )?region\[8:16\]"):
        region[bad]


def test_a_page_of_an_unmapped_region_is_not_touched(region):
    region._lose("it was unmapped", UsageError)
    accesses = [region.read, region.alias.read, region[3].read, region.sweep]
    accesses += [lambda: region.madvise("dontneed"), lambda: region.mprotect("r")]
    for access in accesses:
        with pytest.raises(UsageError, match="was unmapped"):
            access()
    assert region.target.asked == []


@pytest.mark.parametrize("bad", [64, -65, 1000])
def test_a_page_outside_the_region_is_refused_with_the_valid_range(region, bad):
    with pytest.raises(UsageError, match=f"no page {bad}"):
        region[bad]


@pytest.mark.parametrize("bad", [slice(3, 3), slice(5, 2), slice(0, 65), slice(0, 10, 2), slice(70, 80)])
def test_an_empty_or_reversed_range_is_refused(region, bad):
    with pytest.raises(UsageError):
        region[bad]


def test_a_page_or_range_is_printed_as_its_numbers(region):
    assert str(region[3]) == "page 3"
    assert str(region[8:16]) == "pages 8–15"


def test_iteration_yields_every_page_once(region):
    assert [part.first for part in region] == list(range(64))
    assert len(region) == 64


def test_a_touch_is_described_by_its_page_and_region(region):
    region.write(3, 0x55, offset=8)
    kind, address, what, rest = region.target.asked[0]
    assert (kind, address) == ("write", 0x10_0000_0000 + 3 * PAGE + 8)
    assert what == "write to page 3 of region-1"
    assert rest == {"length": 8, "value": 0x55, "by": None}


@pytest.mark.parametrize("offset", [-8, 4, PAGE - 7, PAGE])
def test_a_touch_stays_within_its_page(region, offset):
    with pytest.raises(UsageError, match="not a multiple of 8"):
        region.read(0, offset)


def test_a_negative_value_is_written_as_its_64_bits(region):
    region.write(0, -1)
    assert region.target.asked[0][3]["value"] == 2**64 - 1


def test_a_snapshot_of_a_part_reads_only_that_part(region):
    region[4:8].snapshot("pagemap")
    region.snapshot()
    assert region.target.asked == [("snapshot", 4, 4, "pagemap"), ("snapshot", 0, 64, None)]


def test_the_alias_has_the_same_pages_at_other_addresses(region):
    assert len(region.alias) == len(region)
    assert region.alias.start == 0x20_0000_0000
    assert region.page_of(region.alias.start) is None


def test_what_does_not_name_pages_is_refused(region):
    assert pages_of(region) == region[:]
    assert pages_of(region.alias) == region.alias[:]
    assert pages_of(region[3:5]) == region[3:5]
    for bad in (3, None, "region-1", range(3)):
        with pytest.raises(UsageError, match="has no pages"):
            pages_of(bad)
