"""The columns of the table of formats agree on each entry."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from uffdlab.pte import FORMATS, State

FACTS = SimpleNamespace(vma_soft_dirty=False, hugetlb=False, tracks_soft_dirty=True, answered=(1 << 10) - 1)
FRAMES = st.integers(1, (1 << 36) - 1)


def arrays(entry, level):
    return np.array([entry], dtype=np.uint64), np.array([level], dtype=np.uint8)


@pytest.mark.parametrize("name", FORMATS)
@given(data=st.data())
def test_the_bits_of_a_state_are_those_that_the_decoder_reads(name, data):
    form = FORMATS[name]
    level = 2 if State.HUGE in form.bits else 1
    present = 1 << form.bits[State.PRESENT]
    state = data.draw(st.sampled_from([bit for bit in form.bits if bit not in (State.PRESENT, State.SWAPPED)]))
    if state == State.PROTNONE:
        present = 0  # in an entry with the present bit, the same bit means global
    states, known = form.decode(*arrays(present | 1 << form.bits[state], level), FACTS)
    assert known[0] & state
    assert states[0] & state


@pytest.mark.parametrize("name", [name for name, form in FORMATS.items() if form.frame_field])
@given(frame=FRAMES, level=st.integers(1, 3), low=st.integers(0, 0xFFF))
def test_the_frame_is_decoded_from_its_field(name, frame, level, low):
    form = FORMATS[name]
    field = form.frame_field(level)
    entry = 1 << form.bits[State.PRESENT]
    if level > 1 and State.HUGE in form.bits:
        entry |= 1 << form.bits[State.HUGE]
    if level == 1:
        entry |= low & ~0x80 & (1 << field.low) - 1
    value = max(1, frame >> field.shift)
    entries, levels = arrays(entry, level)
    marked = field.mark(entries, value)
    assert form.frames(marked, levels)[0] == field.frames(marked)[0] == value << field.shift
    assert field.mark(marked, 0)[0] == entry
    named = {bit.name: bit for bit in form.explain(int(marked[0]), level)}["frame"]
    assert f"{value << field.shift:#x}" in named.meaning


@pytest.mark.parametrize("name", FORMATS)
def test_a_state_that_is_not_set_is_explained_as_not_set(name):
    form = FORMATS[name]
    present = 1 << form.bits[State.PRESENT]
    for state in set(form.bits) - {State.PRESENT, State.SWAPPED, State.PROTNONE, State.HUGE}:
        unset, set_ = (
            next(field for field in form.explain(entry, 1) if field.number == form.bits[state])
            for entry in (present, present | 1 << form.bits[state])
        )
        assert (unset.value, set_.value) == (0, 1)
        assert unset.meaning != set_.meaning


@pytest.mark.parametrize("name", FORMATS)
@given(entry=st.integers(0, (1 << 64) - 1), level=st.integers(0, 3))
def test_every_entry_is_decoded_and_explained(name, entry, level):
    form = FORMATS[name]
    entries, levels = arrays(entry, level)
    states, known = form.decode(entries, levels, FACTS)
    assert not states[0] & ~known[0]
    assert form.frames(entries, levels).shape == (1,)
    fields = form.explain(entry, max(level, 1))
    assert sum(field.value << field.number for field in fields) == entry
    assert sum(field.width for field in fields) == 64
    assert [field.number for field in fields] == sorted((field.number for field in fields), reverse=True)
