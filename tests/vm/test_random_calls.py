"""hypothesis plays random calls on real kernels; after each call every page must agree with the model."""

import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from uffdlab.errors import AgentError, UsageError
from uffdlab.fuzz.generator import random_op, register_all
from uffdlab.fuzz.rules import Op
from uffdlab.fuzz.run import MEMORIES, Mismatch, caused_by_calls, play, play_randomly, region_pages, rules_of
from uffdlab.lab import Lab
from uffdlab.uapi.memory import MEMORY

from ..unprivileged import UNPRIVILEGED
from .lab_fixtures import LINES, LOCAL, on_each

pytestmark = [pytest.mark.vm, pytest.mark.long]

lab = on_each(*LINES, LOCAL, UNPRIVILEGED)

MOST_EXAMPLES = 6
PROTECT_DROP_COPY_WRITE = [Op("protect", 0, mode_bit=True), Op("dontneed", 0), Op("copy", 0, 3), Op("write", 0, 4)]
CHILD_GETS_THE_MARK = [
    Op("write", 0, 1),
    Op("protect", 0, mode_bit=True),
    Op("dontneed", 0),
    Op("fork", 0, 2, mode_bit=True),
]


@st.composite
def ops(draw, rules):
    """Return a list of calls that hypothesis can shorten and simplify."""
    pages = region_pages(rules.memory)
    op = st.randoms(use_true_random=False).map(lambda generator: random_op(generator, rules, pages))
    first = [register_all(rules, pages)] if draw(st.booleans()) else []
    return first + draw(st.lists(op, min_size=5, max_size=30))


def test_random_calls_use_nearly_every_kind_of_memory():
    """memfd is the same as shmem, and a small guest has no pages of 1 GiB."""
    assert set(MEMORY) - set(MEMORIES) == {"memfd", "hugetlb-1g", "hugetlb-1g-private"}


@pytest.mark.timeout(900)
@pytest.mark.parametrize("memory", MEMORIES)
@pytest.mark.parametrize("events", [False, True], ids=["no-events", "events"])
def test_pages_agree_with_the_model(lab, memory, events):
    try:
        rules = rules_of(lab, memory, events=events, unpopulated=events)
    except (AgentError, UsageError) as error:
        pytest.skip(f"{lab.kernel}: {error}")

    unknown = []

    @settings(
        max_examples=MOST_EXAMPLES,
        database=None,
        print_blob=True,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.explicit, Phase.generate, Phase.shrink],
    )
    @given(ops(rules))
    @example([register_all(rules, region_pages(memory)), *PROTECT_DROP_COPY_WRITE])
    @example([Op("write", 1, 5), register_all(rules, region_pages(memory)), *CHILD_GETS_THE_MARK])
    def run(calls):
        try:
            play(lab, rules, [op for op in calls if op.call not in rules.leave_out])
        except Mismatch as found:
            if caused_by_calls(lab, found):
                raise
            unknown.append(found.message)

    run()
    if unknown:
        pytest.skip(f"{lab.kernel}: unknown, because it did not happen again: {unknown}")


@pytest.mark.timeout(600)
def test_a_minute_of_random_calls_agrees_with_the_model(lab):
    count = play_randomly(lab, 60, seed=42)
    assert count.calls > 10
    assert count.regions > 10 * count.unknown


@pytest.mark.timeout(600)
def test_random_calls_find_the_defect_of_the_posted_patch():
    """The posted patch ignores WP together with DONTWAKE.  The model does not look for it in particular."""
    with Lab("6.1-as-posted") as lab, pytest.raises(Mismatch, match=r"wp=False|should return 'EINVAL'"):
        play_randomly(lab, 240, seed=3, memories=("anon", "shmem"))


@pytest.mark.timeout(600)
def test_hypothesis_shrinks_that_defect_to_three_calls():
    with Lab("6.1-as-posted") as lab:
        rules = rules_of(lab, "shmem")

        @settings(max_examples=60, database=None, suppress_health_check=list(HealthCheck), report_multiple_bugs=False)
        @given(ops(rules))
        def run(calls):
            play(lab, rules, calls)

        with pytest.raises(Mismatch) as found:
            run()
    last = found.value.calls[-1]
    assert (last.call, last.mode_bit, last.dontwake) in {("copy", True, True), ("continue", True, True)}
    assert len(found.value.calls) <= 3
