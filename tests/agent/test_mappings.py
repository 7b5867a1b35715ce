"""Where regions and their aliases are put."""

import mmap

import pytest

from uffdlab.agent import native
from uffdlab.agent.mappings import ALIAS_DISTANCE, find_free

NONE = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS


def test_a_lab_s_many_regions_do_not_meet_the_aliases_of_others(mortal_lab):
    """The 33rd was put where the first one's alias lay, and so was each after it anywhere."""
    regions = [mortal_lab.map(pages=1, memory="shmem") for _ in range(70)]
    base = regions[0].start
    for region in regions:
        assert (region.start - base) % (2 * ALIAS_DISTANCE) < ALIAS_DISTANCE
        assert region.alias.start == region.start + ALIAS_DISTANCE
    thp = mortal_lab.map(pages=512, memory="thp")
    assert thp.start == regions[-1].start + 0x8000_0000
    regions[0].fill(7)
    regions[0].mremap()
    assert regions[0].start > thp.start
    assert regions[0].read(0).result() == 7


@pytest.mark.parametrize("taken", [False, True])
def test_a_free_place_is_free_and_aligned(taken):
    length, unit = 3 << 12, 1 << 21
    hint = find_free(0, 1 << 22, 1 << 21)
    if taken:
        native.map_memory(hint, 4096, 0, NONE, -1)
    place = find_free(hint, length, unit)
    assert place % unit == 0
    assert (place == hint) is not taken
    assert native.map_memory(place, length, 0, NONE, -1) == place
    native.unmap_memory(place, length)
    if taken:
        native.unmap_memory(hint, 4096)
