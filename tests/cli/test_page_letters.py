"""The pages before and after, in a terminal."""

import click
import numpy as np
import pytest

from uffdlab.cli import page_letters
from uffdlab.observations.snapshot import Snapshot
from uffdlab.pte import State


def snapshot(states):
    count = len(states)
    states = np.array(states, dtype=np.uint32)
    known = np.full(count, 0xFFFF_FFFF, dtype=np.uint32)
    entries, levels = np.zeros(count, dtype=np.uint64), np.zeros(count, dtype=np.uint8)
    return Snapshot("r", 0x1000, 4096, "physical", entries, levels, decoded=(states, known))


@pytest.mark.parametrize(
    ("count", "rows"),
    [
        (2, ["before   after", "· W    U W "]),
        (18, [f"before{' ' * 26}   after", f"{'· W ' * 8}   {'U W ' * 8}", f"· W {' ' * 28}   U W {' ' * 28}"]),
    ],
)
def test_two_grids_side_by_side_and_what_their_letters_mean(count, rows):
    absent, protected = State(0), State.PRESENT | State.UFFD_WP
    writable = State.PRESENT | State.WRITABLE
    text = page_letters.side_by_side(
        snapshot([absent, writable] * (count // 2)), snapshot([protected, writable] * (count // 2))
    )
    assert click.unstyle(text) != text
    assert click.unstyle(text).splitlines() == [
        *rows,
        "· absent   U present, not writable, uffd-wp   W present, writable",
    ]
