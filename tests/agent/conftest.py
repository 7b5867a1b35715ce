"""A lab on this host's own kernel, without a VM: for what depends on no particular kernel."""

import pytest

from uffdlab.errors import AgentError
from uffdlab.lab import Lab


@pytest.fixture(scope="module")
def host_lab():
    with Lab(machine="local") as lab:
        try:
            lab.userfaultfd().close()
        except AgentError as error:
            if error.kind != "no-userfaultfd":
                raise
            pytest.skip(f"no userfaultfd on this host: {error}")
        yield lab


@pytest.fixture
def mortal_lab():
    """One of the test's own, which it may end in any way."""
    with Lab(machine="local") as lab:
        yield lab
