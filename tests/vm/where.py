"""Where a module's tests run: on kernels in guests, and on this host's own."""

import os

import pytest

from uffdlab.errors import AgentError, UsageError
from uffdlab.lab import Lab
from uffdlab.uapi.protocol.agent import TurnSwapOn

from ..unprivileged import UNPRIVILEGED, nobodys_lab

# One of each line of Linux, and this host's own, which is no guest.
LINES = ("6.1-series", "debian/trixie", "debian/trixie-backports")
LOCAL = "local"


def on_each(*where):
    """Make a module's fixture ``lab``: one on each of these kernels."""

    @pytest.fixture(scope="module", params=where)
    def lab(request):
        if request.param == UNPRIVILEGED and os.geteuid():
            pytest.skip("whoever runs the tests is unprivileged already")
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
        return nobodys_lab()
    return Lab(machine=LOCAL) if where == LOCAL else Lab(where)


def sees_entries(lab):
    """Return whether a witness here reads raw entries; a guest must have one, a host may lack the PTE reader."""
    found = bool({"physical", "kernel"} & set(lab.witnesses))
    assert found or lab.machine.name == LOCAL
    return found


def with_swap(lab):
    """Turn on a guest's swap, which every kernel of the lab must have; on a host skip where none is on."""
    try:
        lab.ask(TurnSwapOn())
    except UsageError as error:
        if lab.machine.name != LOCAL:
            raise
        pytest.skip(f"{lab.kernel}: {error}")
