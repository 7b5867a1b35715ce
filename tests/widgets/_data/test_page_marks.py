from types import SimpleNamespace

import numpy as np

from uffdlab.uapi import RegisterMode
from uffdlab.widgets._data import page_marks

START = 0x10_0000_0000
MINOR, WP, NONE = RegisterMode.MINOR, RegisterMode.WP, RegisterMode(0)


def mapping(*registered, touches=()):
    uffds = tuple(
        SimpleNamespace(registered=[(START + first * 4096, count * 4096, mode) for first, count, mode in ranges])
        for ranges in registered
    )
    lab = SimpleNamespace(userfaultfds=uffds, touches=touches)
    return SimpleNamespace(
        lab=lab, start=START, page_size=4096, pages=8, page_of=lambda address: (address - START) // 4096
    )


def test_the_newest_registration_of_a_page_counts():
    modes = page_marks.registered_modes(mapping([(0, 8, MINOR), (2, 4, MINOR | WP), (3, 1, NONE)]))
    assert page_marks.registered_ranges(modes, 100) == [
        [100, 2, "minor"],
        [102, 1, "minor, wp"],
        [104, 2, "minor, wp"],
        [106, 2, "minor"],
    ]


def test_ranges_beyond_the_region_are_cut():
    modes = page_marks.registered_modes(mapping([(-4, 6, WP)], [(6, 50, MINOR)], [(20, 2, WP)]))
    assert page_marks.registered_ranges(modes) == [[0, 2, "wp"], [6, 2, "minor"]]


def test_unknown_mode_bits_are_kept():
    assert page_marks.mode_text(int(WP) | 1 << 40) == "wp, 0x10000000000"
    assert page_marks.registered_ranges(np.zeros(4, np.uint32)) == []


def test_waiting_pages_lists_only_waiting_touches():
    touches = tuple(
        SimpleNamespace(address=START + page * 4096 + 8, kind=kind, state=state)
        for page, kind, state in ((3, "read", "waiting"), (4, "write", "running"))
    )
    assert page_marks.waiting_pages(mapping(touches=touches)) == ([(3, "read")], True)
