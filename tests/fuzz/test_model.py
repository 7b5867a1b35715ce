"""The model without a kernel: its answers to calls with known results, and that calls can be repeated."""

import random
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uffdlab.fuzz.generator import CALLS, calls_of, pages_used, random_op, random_ops, register_all
from uffdlab.fuzz.memory import MINOR, MISSING, RWP, WP
from uffdlab.fuzz.model import Model
from uffdlab.fuzz.page import ExpectedPage, ObservedPage
from uffdlab.fuzz.rules import ANY, SKIP, Op, Rules
from uffdlab.fuzz.run import MEMORIES, region_pages

ALL = int(MISSING | WP | MINOR)
NO_MORE = frozenset({"poison", "move", "rwprotect"})


def answers(memory, *ops, events=False):
    model = Model(Rules(memory, events=events), 4)
    return [model.apply(op) for op in ops]


@pytest.mark.parametrize("memory", ["shmem", "hugetlb", "tmpfs", "anon-shared"])
def test_a_minor_fault_is_resolved_write_protected(memory):
    assert answers(
        memory,
        Op("register", 0, ALL),
        Op("alias_write", 0, 7),
        Op("read", 0),
        Op("continue", 0, mode_bit=True),
        Op("read", 0),
        Op("write", 0, 8),
        Op("protect", 0),
        Op("write", 0, 8),
        Op("alias_read", 0),
    ) == ["ok", "ok", "fault minor", "ok", "= 7", "fault wp", "ok", "ok", "= 8"]


@pytest.mark.parametrize("memory", ["shmem-private", "hugetlb-private"])
def test_a_private_page_is_a_copy_after_a_write(memory):
    assert answers(
        memory,
        Op("alias_write", 0, 7), Op("read", 0), Op("write", 0, 8), Op("alias_read", 0), Op("alias_write", 0, 9),
        Op("read", 0), Op("dontneed", 0), Op("read", 0),
    )[3:] == ["= 7", "ok", "= 8", "ok", "= 9"]  # fmt: skip


def test_only_a_shared_file_can_be_punched_through_the_region():
    assert answers("anon", Op("remove", 0)) == ["EINVAL"]
    assert answers("shmem-private", Op("remove", 0)) == ["EACCES"]
    assert answers("shmem", Op("write", 0, 5), Op("remove", 0), Op("read", 0))[1:] == ["ok", "= 0"]


def test_punching_a_hole_removes_a_private_copy_only_with_hugetlb():
    ops = [Op("write", 0, 8), Op("alias_remove", 0), Op("read", 0)]
    assert answers("shmem-private", *ops)[-1] == "= 8"
    assert answers("hugetlb-private", *ops)[-1] == "= 0"


def test_dontneed_clears_the_mark_of_an_anonymous_page_but_not_of_a_file_page():
    ops = [Op("register", 0, int(WP)), Op("write", 0, 1), Op("protect", 0, mode_bit=True), Op("dontneed", 0)]
    assert answers("anon", *ops, Op("write", 0, 2))[-1] == "ok"
    assert answers("shmem", *ops, Op("write", 0, 2))[-1] == "fault wp"


def test_a_range_ends_at_the_first_page_that_fails():
    registered = Op("register", 0, ALL, count=4)
    assert answers("shmem", registered, Op("copy", 2, 5), Op("copy", 0, 7, count=4))[-1] == "EAGAIN after 2"
    assert answers("shmem", registered, Op("copy", 0, 5), Op("copy", 0, 7, count=4))[-1] == "EEXIST"
    # To the kernel the region may be several mappings; such an ioctl works on one.
    assert answers("shmem", Op("register", 0, ALL), Op("copy", 0, 7, count=4))[-1] == "ok"


def test_a_page_is_moved_without_its_protection():
    model = Model(Rules("anon"), 4)
    for op in (Op("register", 0, ALL & ~int(MINOR), count=4), Op("copy", 1, 5, mode_bit=True)):
        assert model.apply(op) == "ok"
    assert [model.apply(Op("move", 0, 1)), model.apply(Op("move", 0, 1)), model.apply(Op("move", 2, 1))] == [
        "ok", "EEXIST", "ENOENT",
    ]  # fmt: skip
    assert (model.pages[0].content, model.pages[0].wp, model.pages[1].mapped) == (5, False, False)


def test_a_page_that_a_child_may_share_is_not_moved():
    registered = Op("register", 0, int(MISSING), count=4)
    moves = [registered, Op("copy", 1, 5), Op("fork", 0), Op("move", 0, 1)]
    assert answers("anon", *moves)[-1] == SKIP
    assert answers("anon", *moves[:-1], Op("write", 1, 6), Op("move", 0, 1))[-1] == "ok"


def test_every_access_to_a_read_write_protected_page_faults():
    registered = [Op("register", 0, int(RWP), count=4), Op("write", 0, 5), Op("rwprotect", 0, mode_bit=True)]
    assert answers("anon", *registered, Op("read", 0), Op("rwprotect", 0), Op("read", 0))[3:] == [
        "fault rwp", "ok", "= 5",
    ]  # fmt: skip
    assert answers("anon", *registered, Op("protect", 0, mode_bit=True))[-1] == "ENOENT"
    assert answers("anon", Op("register", 0, int(RWP | WP)))[-1] == "EINVAL"


def test_a_write_to_a_huge_page_of_a_file_may_be_a_minor_fault():
    ops = [Op("register", 0, int(WP | MINOR), count=4), Op("read", 2), Op("write", 2, 7)]
    assert answers("shmem-thp", *ops)[1:] == ["= 0", SKIP]
    assert answers("shmem", *ops)[1:] == ["= 0", "ok"]
    assert answers("shmem-thp", Op("alias_write", 2, 7), ops[0], Op("continue", 2), Op("write", 2, 8))[-1] == "ok"


@pytest.mark.parametrize(
    ("observed", "expected"),
    [
        (ObservedPage(True, True), True),
        (ObservedPage(False, False), True),
        (ObservedPage(True, False), False),
        (ObservedPage(False, True), False),
    ],
)
def test_protecting_a_huge_page_of_a_file_protects_only_mapped_pages(observed, expected):
    model = Model(Rules("shmem-thp"), 512)
    for op in (
        Op("write", 2, 7),
        Op("register", 0, int(RWP), count=512),
        Op("read", 2),
        Op("rwprotect", 2, mode_bit=True),
    ):
        model.apply(op)
    assert model.agrees(2, observed) is expected


def test_each_call_sends_its_messages():
    model = Model(Rules("anon", events=True), 4)
    messages = []
    for op in (Op("dontneed", 0), Op("register", 0, ALL & ~int(MINOR), count=4), Op("dontneed", 1), Op("mremap", 0)):
        model.apply(op)
        messages.append(list(model.messages))
    assert messages == [[], [], ["remove"], ["remap", "unmap"]]
    assert model.pages[0].modes
    without_events = Model(Rules("anon"), 4)
    without_events.apply(Op("register", 0, int(MISSING), count=4))
    without_events.apply(Op("mremap", 0))
    assert not without_events.messages
    assert not without_events.pages[0].modes  # without the event the registration is lost


@pytest.mark.parametrize("events", [False, True])
def test_a_child_keeps_the_marks_only_with_the_fork_event(events):
    model = Model(Rules("anon", events=events), 4)
    for op in (Op("register", 0, int(WP), count=4), Op("write", 0, 5), Op("protect", 0, mode_bit=True)):
        model.apply(op)
    child = model.child()
    assert (child.pages[0].wp, child.pages[0].content) == (events, 5)
    assert child.apply(Op("write", 0, 6)) == ("fault wp" if events else "ok")
    assert model.apply(Op("read", 0)) == "= 5"


def test_a_page_in_swap_keeps_content_and_mark():
    model = Model(Rules("anon"), 4)
    for op in (Op("register", 0, int(MISSING | WP), count=4), Op("copy", 0, 5, mode_bit=True), Op("page_out", 0)):
        assert model.apply(op) == "ok"
    assert model.pages[0].mapped is None
    assert not model.agrees(0, ObservedPage(present=False, wp=False))
    assert model.agrees(0, ObservedPage(present=False, wp=True, file=False, swapped=True))
    assert model.apply(Op("copy", 0, 9)) == "EEXIST"
    assert model.apply(Op("read", 0)) == "= 5"


@pytest.mark.parametrize(
    ("op", "answer"),
    [
        (Op("copy", 1, 5), "ENOENT"),
        (Op("protect", 1, mode_bit=True), "ENOENT"),
        (Op("protect", 0, mode_bit=True, dontwake=True), "EINVAL"),
        (Op("continue", 0), "EFAULT"),
        (Op("move", 0, 1), "EINVAL"),
        (Op("collapse", 0), SKIP),
        (Op("remove", 0), "ok"),
        (Op("register", 0, ALL), "ok"),
    ],
)
def test_an_impossible_call_is_refused(op, answer):
    assert answers("shmem", Op("register", 0, int(MISSING | WP)), op)[-1] == answer


@pytest.mark.parametrize(
    "observed",
    [
        ObservedPage(present=False, wp=True),
        ObservedPage(present=True, wp=False),
        ObservedPage(present=True, wp=True, file=True),
        ObservedPage(present=True, wp=True, writable=True),
        ObservedPage(present=True, wp=True, swapped=True),
    ],
)
def test_an_observed_page_that_differs_does_not_agree(observed):
    page = ExpectedPage(mapped=True, anon=True, wp=True, entry_writable=False)
    assert page.agrees(ObservedPage(present=True, wp=True, file=False, swapped=False, writable=False))
    assert page.agrees(ObservedPage(present=True, wp=True))
    assert not page.agrees(observed)


@given(st.sampled_from(MEMORIES), st.integers(0, 1000), st.booleans(), st.sampled_from([frozenset(), NO_MORE]))
def test_every_call_has_an_answer_and_a_seed_always_gives_the_same_calls(memory, seed, events, leave_out):
    rules, pages = Rules(memory, events, events, leave_out), min(region_pages(memory), 8)
    ops = list(islice(random_ops(rules, pages, seed), 40))
    assert ops == list(islice(random_ops(rules, pages, seed), 40))
    assert {op.call for op in ops} <= set(calls_of(rules))
    model = Model(rules, pages)
    for op in ops:
        answer = model.apply(op)
        assert answer
        assert op.call != "collapse" or answer in (ANY, SKIP)
        for page in model.pages:
            assert not (page.wp and not page.modes & (WP | RWP))
            assert not (page.mapped and page.poisoned)


def test_the_generator_leaves_out_impossible_calls():
    assert set(CALLS) - set(calls_of(Rules("thp"))) == {"alias_read", "alias_write", "alias_remove"}
    assert set(CALLS) - set(calls_of(Rules("shmem", leave_out=NO_MORE))) == NO_MORE | {"collapse"}
    assert list(pages_used(4)) == [0, 1, 2, 3]
    assert list(pages_used(512)) == [0, 1, 2, 511]
    assert register_all(Rules("anon"), 4).value == int(MISSING | WP)
    made = {random_op(random.Random(seed), Rules("thp"), 512).page for seed in range(50)}
    assert made == {0, 1, 2, 511}


def blocked_copy(memory, *meanwhile, modes=ALL, wp=False, checks_destination=True):
    model = Model(Rules(memory, checks_destination=checks_destination), 4)
    for op in (Op("register", 0, modes, count=4), Op("block_copy", 1, 7, mode_bit=wp)):
        assert model.apply(op) == "ok"
    for op in meanwhile:
        model.apply(op)
    return model


@pytest.mark.parametrize(
    ("meanwhile", "expected"),
    [
        ([], "ok"),
        ([Op("dontneed", 1), Op("mprotect", 0, count=4)], "ok"),
        ([Op("alias_write", 1, 5)], "EEXIST"),
        ([Op("register", 0, 0, count=4)], "ENOENT"),
        ([Op("register", 0, int(MISSING), count=4)], "EAGAIN"),
    ],
)
def test_a_copy_that_waited_checks_its_destination_again(meanwhile, expected):
    model = blocked_copy("shmem", *meanwhile)
    assert model.apply(Op("release_copy", 0)) == expected
    assert model.pages[1].has_page == (expected == "ok")
    assert model.apply(Op("release_copy", 0)) == SKIP


@pytest.mark.parametrize(
    ("memory", "other", "expected"),
    [
        ("shmem", "shmem", "EAGAIN"), ("anon", "hugetlb", "EAGAIN"), ("hugetlb", "anon", "ENOENT"),
        ("anon", "thp", "ok"),
    ],
)  # fmt: skip
def test_a_copy_that_waited_fills_no_other_kind_of_mapping(memory, other, expected):
    modes = int(MISSING | WP)
    # The new mapping is not registered yet, and page 1 of hugetlb is past the end of four small pages.
    assert blocked_copy(memory, modes=modes).replaced(Rules(other), 4).apply(Op("release_copy", 0)) == "ENOENT"
    model = blocked_copy(memory, modes=modes).replaced(Rules(other), 4)
    model.apply(Op("register", 0, modes, count=4))
    assert model.apply(Op("release_copy", 0)) == expected
    assert any(page.has_page for page in model.pages) == (expected == "ok")


def test_changes_that_older_kernels_miss_are_skipped_while_a_copy_waits():
    model = blocked_copy("anon", modes=int(MISSING | WP), checks_destination=False)
    assert model.apply(Op("register", 0, int(MISSING), count=4)) == SKIP
    assert model.apply(Op("register", 0, 0, count=4)) == "ok"
    assert model.apply(Op("release_copy", 0)) == "ENOENT"


def test_the_generator_replaces_the_memory_and_adapts_its_calls():
    others = [Rules(memory) for memory in MEMORIES]
    ops = list(islice(random_ops(Rules("anon"), 4, 3, others), 2000))
    replaced = [index for index, op in enumerate(ops) if op.call == "replace"]
    assert len({ops[index].value for index in replaced}) > len(MEMORIES) / 2
    first_hugetlb = next(index for index in replaced if MEMORIES[ops[index].value] == "hugetlb")
    assert all(op.page < 4 for op in ops[first_hugetlb : first_hugetlb + 10])
    assert not any(op.call == "replace" for op in islice(random_ops(Rules("anon"), 4, 3), 2000))
