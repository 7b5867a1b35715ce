"""Where a module's tests run: on kernels in guests, and on this host's own."""

import pytest

from uffdlab.errors import AgentError, UsageError
from uffdlab.lab import Lab

# One of each line of Linux, and this host's own, which is no guest.
LINES = ("6.1-series", "debian/trixie", "debian/trixie-backports")
LOCAL = "local"


def on_each(*where):
    """Make a module's fixture ``lab``: one on each of these kernels."""

    @pytest.fixture(scope="module", params=where)
    def lab(request):
        if request.param != LOCAL:
            with Lab(request.param) as lab:
                yield lab
            return
        with Lab(machine=LOCAL) as lab:
            try:
                lab.userfaultfd().close()
            except AgentError as error:
                pytest.skip(f"no userfaultfd on this host: {error}")
            yield lab

    return lab


def sees_entries(lab):
    """Tell whether a witness here reads raw entries; in a guest one must, on a host without the PTE reader none can."""
    found = bool({"physical", "kernel"} & set(lab.witnesses))
    assert found or lab.kernel.startswith("Linux ")
    return found


def with_swap(lab):
    """Turn on a guest's swap, which every kernel of the lab must have; on a host skip where none is on."""
    try:
        lab.call("agent.swap_on")
    except UsageError as error:
        if lab.machine.name != LOCAL:
            raise
        pytest.skip(f"{lab.kernel}: {error}")
