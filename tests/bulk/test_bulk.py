"""The functions in C: checksums, decoding of entries, walks of page tables."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from uffdlab import pte
from uffdlab.bulk import sums
from uffdlab.bulk.entries import ODD, OutsideRam, Ram, Step
from uffdlab.pte import x86


@given(st.binary(max_size=100), st.binary(min_size=1, max_size=100), st.integers(0, 2**64 - 1))
def test_a_checksum_changes_with_the_content(before, data, total):
    checksum = sums.add(sums.add(0, before), data)
    assert checksum == sums.add(sums.add(0, memoryview(before)), bytearray(data))
    assert 0 <= sums.add(total, data) < 2**64
    assert checksum != sums.add(sums.add(0, before), data + b"\0")
    for at in {0, len(data) // 2, len(data) - 1}:
        assert checksum != sums.add(sums.add(0, before), data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :])


entries = st.one_of(
    st.sampled_from([0, 0x8000_0000_0000_0867, 0x8000_0000_3FFC_FC65, 0x25, 0x60, 1 << 58 | 1]),
    st.integers(0, (1 << 64) - 1),
)


@settings(max_examples=100, deadline=None)
@given(
    pattern=st.lists(entries, min_size=1, max_size=5),
    repeat=st.integers(1, 600),
    levels=st.lists(st.integers(0, 5), min_size=1, max_size=4),
)
def test_many_entries_are_decoded_like_single_entries(pattern, repeat, levels):
    many = np.array([entry for entry in pattern for _ in range(repeat)], dtype=np.uint64)
    level = np.resize(np.array(levels, dtype=np.uint8), many.shape)
    states, known = pte.decode_x86(many, level)
    for at in {*range(0, len(many), max(1, repeat)), len(many) - 1}:
        single = pte.decode_x86([many[at]], [level[at]])
        assert (states[at], known[at]) == (single[0][0], single[1][0])


def test_entries_that_the_c_decoder_leaves_to_its_caller_are_counted_and_marked():
    entries = np.array([0, 1, 2, 1 << 58 | 1, 1], dtype=np.uint64)
    _, known, odd = x86.decoder().decode(entries, False)
    assert odd == 2
    assert (known == ODD).tolist() == [False, False, True, True, False]


def test_frames_below_and_above_the_hole_in_ram_are_found():
    file = np.arange(8, dtype=np.uint64).repeat(512).reshape(8, 512)
    ram = Ram(file, 5)
    assert [ram.frame(frame)[0] for frame in (0, 4, 1 << 20, (1 << 20) + 2)] == [0, 4, 5, 7]
    for frame in (5, (1 << 20) - 1, (1 << 20) + 3, 1 << 52, -1):
        with pytest.raises(OutsideRam) as caught:
            ram.frame(frame)
        assert caught.value.frame == frame


@pytest.mark.parametrize("levels", [4, 5])
def test_a_path_ends_at_an_empty_entry_and_a_frame_outside_ram_is_an_error(levels):
    file = np.zeros((8, 512), dtype=np.uint64)
    ram = Ram(file, 8)
    assert ram.path(1, levels, 0x1000) == [Step(levels, 1, 0, 0)]
    file[1, 0] = 2 << 12 | 1
    assert ram.path(1, levels, 0x1000) == [Step(levels, 1, 0, 0x2001), Step(levels - 1, 2, 0, 0)]
    file[2, 0] = 8 << 12 | 1
    with pytest.raises(OutsideRam, match="frame 0x8 is not RAM"):
        ram.path(1, levels, 0x1000)
