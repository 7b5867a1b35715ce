"""The lab probes what each kernel supports, and docs/reference/capabilities.md says the same."""

from pathlib import Path

import pytest

from uffdlab.errors import IoctlError
from uffdlab.uapi import Feature
from uffdlab.uapi.protocol.agent import ReserveHugepages

pytestmark = [pytest.mark.vm, pytest.mark.long]

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "reference" / "capabilities.md"


def documented(kernel):
    lines = [line for line in DOCUMENT.read_text().splitlines() if line.startswith("|")]
    rows = [[cell.strip() for cell in line[1:-1].split("|")] for line in lines]
    column = rows[0].index(kernel)
    return {(row[0], row[1]): row[column] for row in rows[2:]}


def test_the_document_agrees_with_the_probe(any_lab):
    found = any_lab.capabilities
    assert {(row.group, row.name): row.text for row in found.rows} == documented(any_lab.kernel)
    assert any_lab.kernel in found._repr_html_()


def test_features_and_ioctls_agree(any_lab):
    found = any_lab.capabilities
    pairs = {Feature.POISON: "UFFDIO_POISON", Feature.MOVE: "UFFDIO_MOVE", Feature.RWP: "UFFDIO_RWPROTECT"}
    for feature, ioctl in pairs.items():
        assert bool(found.features & feature) is (not found.missing(ioctl)), ioctl


def test_an_ioctl_that_this_kernel_lacks_is_named(lab):
    region = lab.map(pages=1)
    with lab.userfaultfd() as uffd:
        uffd.register(region, "missing")
        with pytest.raises(IoctlError, match=r"EINVAL: this kernel does not know UFFDIO_POISON .* Linux 6\.6"):
            uffd.poison(region)
    region.unmap()


def test_the_probe_leaves_the_lab_as_it_was(lab):
    free = lab.ask(ReserveHugepages(2 << 20, 0))
    lab._target._capabilities = None
    assert lab.capabilities.rows
    assert lab.ask(ReserveHugepages(2 << 20, 0)) == free
