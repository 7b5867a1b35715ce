"""The fixture ``lab`` for tests that run on several kernels: in guests, and on this host."""

import os

import pytest

from uffdlab.errors import AgentError, UsageError
from uffdlab.lab import Lab
from uffdlab.uapi.protocol.agent import TurnSwapOn

from ..unprivileged import UNPRIVILEGED, unprivileged_lab

# One kernel of each version of Linux; and this host's own kernel, which is not in a guest.
LINES = ("6.1-series", "debian/trixie", "debian/trixie-backports")
LOCAL = "local"


def on_each(*where):
    """Return a module's fixture ``lab``, with one lab on each of these kernels."""

    @pytest.fixture(scope="module", params=where)
    def lab(request):
        if request.param == UNPRIVILEGED and os.geteuid():
            pytest.skip("the user of the tests is unprivileged already")
        with _lab(request.param) as lab:
            try:
                lab.userfaultfd().close()
            except AgentError as error:
                if error.kind != "no-userfaultfd" or lab.machine.name != LOCAL:
                    raise
                pytest.skip(f"no userfaultfd on this host: {error}")
            yield lab

    return lab


def _lab(where):
    if where == UNPRIVILEGED:
        return unprivileged_lab()
    return Lab(machine=LOCAL) if where == LOCAL else Lab(where)


def sees_entries(lab):
    """Return whether a witness reads raw entries; a guest must have one, a host may lack the PTE reader."""
    found = bool({"physical", "kernel"} & set(lab.witnesses))
    assert found or lab.machine.name == LOCAL
    return found


def with_swap(lab):
    """Turn on the swap of a guest.  On a host skip the test if no swap is on."""
    try:
        lab.ask(TurnSwapOn())
    except UsageError as error:
        if lab.machine.name != LOCAL:
            raise
        pytest.skip(f"{lab.kernel}: {error}")
