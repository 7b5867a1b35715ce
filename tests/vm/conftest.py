"""One lab a kernel, shared by the tests that do not break it."""

import pytest

from uffdlab.lab import Lab

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
