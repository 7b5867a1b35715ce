"""Each bit of a snapshot is a boolean array; reading a bit that is unknown for a page is an error."""

import numpy as np
import pytest

from uffdlab.errors import UsageError
from uffdlab.observations.snapshot import Snapshot
from uffdlab.pte import State

PRESENT, WRITE, UFFD_WP = 1, 2, 1 << 10  # of an x86-64 entry


def snapshot(entries, form="x86-64", levels=1):
    array = np.array(entries, dtype=np.uint64)
    return Snapshot("region-1", 0, 4096, "w", array, np.full(len(entries), levels, dtype=np.uint8), form=form, first=4)


@pytest.mark.parametrize("state", State)
def test_every_bit_is_an_attribute(state):
    assert getattr(Snapshot, state.name.lower()).__doc__


def test_a_bit_is_a_boolean_array():
    pages = snapshot([PRESENT | WRITE | 0x1000, PRESENT | UFFD_WP | 0x2000, 0])
    assert pages.present.tolist() == [True, True, False]
    assert pages.writable.tolist() == [True, False, False]
    assert pages.uffd_wp.tolist() == [False, True, False]
    assert pages.present.dtype == bool
    assert (pages.present & ~pages.writable).sum() == 1


def test_an_unknown_bit_is_an_error():
    pages = snapshot([1 << 63 | 7, 0], form="pagemap", levels=0)
    assert pages.present.tolist() == [True, False]
    with pytest.raises(UsageError, match=r"w does not know writable of page 4.*State\.WRITABLE"):
        pages.writable  # noqa: B018
