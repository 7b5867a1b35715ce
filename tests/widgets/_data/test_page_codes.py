"""Page codes: which pages share a code, and the bytes of a code."""

import numpy as np

from uffdlab.widgets._data.page_codes import PageCodes

WP = 0x8000000000000465  # present, accessed, dirty, uffd-wp
HUGE = 0x80000000000004E7  # the same, a huge page


def test_pages_of_one_kind_share_a_code_in_every_snapshot(snapshot):
    codes = PageCodes()
    wp, absent = codes.codes(snapshot((WP, 2), (0, 3), (WP, 1))).tolist()[1:3]
    assert codes.codes(snapshot((0, 2), (WP, 1), (0, 1))).tolist() == [absent, absent, wp, absent]
    assert len(codes.table) == 2
    assert codes.table[wp]["letter"] != codes.table[absent]["letter"]


def test_a_huge_page_spans_the_pages_that_it_maps(snapshot):
    codes = PageCodes()
    (code,) = set(codes.codes(snapshot((HUGE, 512), level=2)).tolist())
    assert codes.table[code]["span"] == 512


def test_a_code_has_one_byte_for_up_to_256_kinds():
    codes = PageCodes()
    codes.table = [{}] * 256
    assert codes.pack(np.array([3, 255], np.uint32)) == bytes([3, 255])
    codes.table = [{}] * 257
    assert codes.pack(np.array([3, 256], np.uint32)) == bytes([3, 0, 0, 1])
