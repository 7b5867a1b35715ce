"""One lab a kernel, shared by the tests that do not break it."""

import contextlib
import errno

import pytest

from uffdlab.lab import Lab
from uffdlab.target.open_userfaultfd import DEFAULT_FEATURES
from uffdlab.uapi.protocol.agent import ReserveHugepages

KERNELS = (
    "6.1-base",
    "6.1-as-posted",
    "6.1-series",
    "debian/bookworm",
    "debian/trixie",
    "debian/trixie-backports",
)
WITHOUT_THE_FLAG = ("6.1-base", "debian/bookworm")


@pytest.fixture(scope="module", params=KERNELS)
def any_lab(request):
    """A lab on each of the six kernels."""
    with Lab(request.param) as lab:
        yield lab


@pytest.fixture(scope="module")
def lab():
    """A lab on the patched kernel."""
    with Lab("6.1-series") as lab:
        yield lab


@pytest.fixture
def needs(lab):
    """Skip, naming what is missing, unless this kernel's capabilities have all of these names."""

    def check(*names):
        lacking = lab.capabilities.missing(*names)
        if lacking:
            pytest.skip(f"{lab.kernel} has no {lacking}")

    return check


@pytest.fixture
def features(lab):
    """Return the usual features that this kernel has, and those that are named."""

    def asked(*more):
        wanted = DEFAULT_FEATURES & lab.capabilities.features
        for each in more:
            wanted |= each
        return wanted

    return asked


@pytest.fixture
def region_of(lab, memory):
    """Map so many pages of the test's memory; they are unmapped in the end."""
    made = []

    def make(pages):
        made.append(lab.map(pages=pages, memory=memory))
        if memory == "hugetlb-private":  # for the copies that a child makes
            lab.ask(ReserveHugepages(made[-1].page_size, pages))
        return made[-1]

    yield make
    for region in made:
        if region in lab.regions:
            region.unmap()


@pytest.fixture
def pinned(lab):
    """Hold a page pinned (FOLL_PIN) for the time of a with block."""

    @contextlib.contextmanager
    def hold(page):
        held = lab.map(pages=1, memory="anon")
        with lab.userfaultfd() as uffd:
            uffd.register(held, "missing")
            touch = page.gup_read(into=held[0])
            if touch.state != "waiting" and "USER_MODE_ONLY" in uffd.way:
                pytest.skip(f"{lab.kernel}: a fault of the kernel's is not handed to a userfaultfd of user mode only")
            if touch.state != "waiting":
                assert touch.outcome().returned == -errno.ENOSYS
                pytest.skip(f"{lab.kernel} is built without CONFIG_CROSS_MEMORY_ATTACH")
            try:
                yield
            finally:
                uffd.zeropage(held)
                assert touch.outcome().ok
        held.unmap()

    return hold
