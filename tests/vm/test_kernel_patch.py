"""The patches pass checkpatch, and the kernels built with them exist and name their variant."""

from __future__ import annotations

import subprocess

import pytest

from uffdlab.kernels import Supply, catalogue, get
from uffdlab.kernels.cache import Cache

pytestmark = pytest.mark.vm

KERNELS = [entry.name for entry in catalogue.load()]
BUILT = [entry for entry in catalogue.load() if isinstance(entry, catalogue.Built)]
# All flags in include/uapi/linux/userfaultfd.h are written (1<<n), and a tree from a tarball has no commits.
IGNORED = "SPACING,UNKNOWN_COMMIT_ID"
PATCHES = sorted({patch for entry in BUILT for patch in entry.patches})


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.timeout(1800)
def test_a_kernel_is_provided_as_a_vmlinux(name):
    kernel = get(name)
    assert kernel.image.name == "vmlinux"
    assert kernel.release
    assert "CONFIG_USERFAULTFD=y\n" in kernel.config.read_text()
    assert Supply().find(name) == kernel


@pytest.mark.parametrize("entry", BUILT, ids=lambda entry: entry.name)
def test_the_release_of_a_kernel_names_the_variant(entry):
    assert get(entry.name).release.endswith(entry.localversion)


@pytest.mark.parametrize("patch", PATCHES, ids=lambda patch: f"{patch.parent.name}/{patch.name}")
def test_a_patch_passes_checkpatch(patch):
    get("6.1-series")
    script = next(Cache().tree("linux-6.1").glob("source-*/scripts/checkpatch.pl"))
    command = ["perl", script, "--no-tree", "--strict", "--terse", "--show-types", "--ignore", IGNORED, patch]
    checked = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")  # --terse prints only faults
    text = patch.read_text()
    assert text.startswith("From 0000000000000000000000000000000000000000 ")
    assert "\nSigned-off-by: " in text
