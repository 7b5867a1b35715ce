"""hypothesis plays random calls on real kernels; each page must be as the model says after every one."""

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from uffdlab.lab import Lab
from uffdlab.page_model import MINOR, MISSING, WP, Op, calls_of
from uffdlab.random_calls import PAGES, Disagreement, play, play_randomly

pytestmark = [pytest.mark.vm, pytest.mark.long]

KERNELS = ("6.1-series", "debian/trixie", "debian/trixie-backports")
EVERYTHING = int(MISSING | WP | MINOR)


@pytest.fixture(scope="module", params=KERNELS)
def lab(request):
    with Lab(request.param) as lab:
        yield lab


def ops(memory, poison=False):
    calls = st.sampled_from([call for call in calls_of(memory, poison=poison) if call != "register"])
    page = st.integers(0, PAGES - 1)
    others = st.builds(Op, calls, page, st.integers(1, 1 << 32), st.booleans(), st.booleans())
    registrations = st.builds(Op, st.just("register"), page, st.integers(0, EVERYTHING))
    return st.lists(others | others | others | registrations, min_size=5, max_size=40)


def registered(memory):
    modes = MISSING | WP | (MINOR if memory == "shmem" else 0)
    return [Op("register", page, int(modes)) for page in range(PAGES)]


@pytest.mark.timeout(900)
@pytest.mark.parametrize("memory", ["anon", "shmem"])
def test_pages_are_as_the_model_says(lab, memory):
    poison = not lab.capabilities.missing("UFFDIO_POISON")

    @settings(max_examples=12, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(ops(memory, poison))
    @example([Op("protect", 0, flag=True), Op("dontneed", 0), Op("copy", 0, 3), Op("write", 0, 4)])
    def run(calls):
        play(lab, memory, registered(memory) + calls)

    run()


@pytest.mark.timeout(600)
def test_random_calls_for_a_while(lab):
    assert play_randomly(lab, 30, seed=42).calls > 10


def test_the_defect_of_the_patch_as_posted_is_found():
    """WP is dropped when DONTWAKE is there too; nobody told the model to look for that."""
    with Lab("6.1-as-posted") as lab, pytest.raises(Disagreement, match=r"uffd_wp=False|should give 'EINVAL'"):
        play_randomly(lab, 240, seed=3)
