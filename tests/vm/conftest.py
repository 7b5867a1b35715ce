"""Labs that the tests of a module share, one for each kernel, and fixtures for them."""

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
    """Return a function that skips the test if this kernel lacks one of the named capabilities."""

    def check(*names):
        lacking = lab.capabilities.missing(*names)
        if lacking:
            pytest.skip(f"{lab.kernel} has no {lacking}")

    return check


@pytest.fixture
def features(lab):
    """Return a function: the default features that this kernel has, and the given ones."""

    def requested(*more):
        wanted = DEFAULT_FEATURES & lab.capabilities.features
        for feature in more:
            wanted |= feature
        return wanted

    return requested


@pytest.fixture
def region_of(lab, memory):
    """Return a function that maps pages of the test's kind of memory.  They are unmapped after the test."""
    made = []

    def make(pages):
        made.append(lab.map(pages=pages, memory=memory))
        if memory == "hugetlb-private":  # for copies in a child
            lab.ask(ReserveHugepages(made[-1].page_size, pages))
        return made[-1]

    yield make
    for region in made:
        if region in lab.regions:
            region.unmap()


@pytest.fixture
def pinned(lab):
    """Return a context manager that pins a page (FOLL_PIN)."""

    @contextlib.contextmanager
    def pin(page):
        destination = lab.map(pages=1, memory="anon")
        with lab.userfaultfd() as uffd:
            uffd.register(destination, "missing")
            touch = page.gup_read(into=destination[0])
            if touch.state != "waiting" and "USER_MODE_ONLY" in uffd.way:
                pytest.skip(f"{lab.kernel}: a userfaultfd for user mode only gets no faults from kernel mode")
            if touch.state != "waiting":
                assert touch.outcome().returned == -errno.ENOSYS
                pytest.skip(f"{lab.kernel} is built without CONFIG_CROSS_MEMORY_ATTACH")
            try:
                yield
            finally:
                uffd.zeropage(destination)
                assert touch.outcome().ok
        destination.unmap()

    return pin
