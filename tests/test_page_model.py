"""The model by itself: what it says of calls whose answers are known, and that its calls can be repeated."""

from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uffdlab.page_model import MINOR, MISSING, WP, Model, Op, calls_of, random_ops

ALL = int(MISSING | WP | MINOR)


def answers(memory, *ops):
    model = Model(memory, 2)
    return [model.apply(op) for op in ops]


def test_a_minor_fault_is_resolved_write_protected():
    assert answers(
        "shmem",
        Op("register", 0, ALL),
        Op("alias_write", 0, 7),
        Op("read", 0),
        Op("continue", 0, flag=True),
        Op("read", 0),
        Op("write", 0, 8),
        Op("protect", 0),
        Op("write", 0, 8),
        Op("alias_read", 0),
    ) == ["ok", "ok", "fault minor", "ok", "= 7", "fault wp", "ok", "ok", "= 8"]


def test_the_mark_of_an_anonymous_page_goes_with_it_and_that_of_a_file_stays():
    ops = [Op("register", 0, int(WP)), Op("write", 0, 1), Op("protect", 0, flag=True), Op("dontneed", 0)]
    assert answers("anon", *ops, Op("write", 0, 2))[-1] == "ok"
    assert answers("shmem", *ops, Op("write", 0, 2))[-1] == "fault wp"


@pytest.mark.parametrize(
    ("op", "answer"),
    [
        (Op("copy", 1, 5), "ENOENT"),
        (Op("protect", 1, flag=True), "ENOENT"),
        (Op("protect", 0, flag=True, dontwake=True), "EINVAL"),
        (Op("continue", 0), "EFAULT"),
        (Op("register", 0, ALL), "ok"),
    ],
)
def test_what_cannot_be_is_refused(op, answer):
    assert answers("shmem", Op("register", 0, int(MISSING | WP)), op)[-1] == answer


@given(st.sampled_from(["anon", "shmem"]), st.integers(0, 1000), st.booleans())
def test_every_call_has_one_answer_and_the_same_seed_gives_the_same_calls(memory, seed, poison):
    ops = list(islice(random_ops(memory, 4, seed, poison=poison), 40))
    assert ops == list(islice(random_ops(memory, 4, seed, poison=poison), 40))
    assert {op.call for op in ops} <= set(calls_of(memory, poison=poison))
    model = Model(memory, 4)
    for op in ops:
        assert model.apply(op)
        for page in model.pages:
            assert not (page.wp and not page.modes & WP)
            assert not (page.mapped and page.poisoned)
