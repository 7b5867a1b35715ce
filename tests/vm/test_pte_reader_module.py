"""The PTE reader as a module in Debian's kernels: it loads, and agrees with the physical witness."""

from __future__ import annotations

import pytest

from uffdlab import Lab, kernels
from uffdlab.errors import KernelError
from uffdlab.pte import State

pytestmark = [pytest.mark.vm, pytest.mark.long, pytest.mark.timeout(1800)]


@pytest.mark.parametrize("kernel", ["debian/bookworm", "debian/trixie", "debian/trixie-backports"])
def test_the_kernel_witness_agrees_with_physical_in_a_debian_kernel(kernel):
    with Lab(kernel) as lab:
        assert "kernel" not in lab.witnesses
    with Lab(kernel, pte_reader=True) as lab:
        assert {"kernel", "physical"} <= set(lab.witnesses)
        region = lab.map(pages=16)
        region.alias.fill()
        uffd = lab.userfaultfd()
        uffd.register(region, "minor", "wp")
        uffd.continue_(region[:8])
        uffd.writeprotect(region[:4])
        by_kernel, by_physical = (region.snapshot(witness) for witness in ("kernel", "physical"))
        assert list(by_kernel.entries) == list(by_physical.entries)
        assert list(by_kernel.has(State.UFFD_WP)) == [True] * 4 + [False] * 12
        assert list(by_kernel.has(State.PRESENT)) == [True] * 8 + [False] * 8


def test_a_kernel_with_the_reader_built_in_gets_no_module():
    assert kernels.pte_reader("6.1-series") is None


def test_a_kernel_image_gets_no_module():
    with pytest.raises(KernelError, match="this is an image"):
        kernels.pte_reader(kernels.get("debian/trixie").image)
