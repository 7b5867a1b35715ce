"""A VM for each provider, in a folder of the tests' own; Vagrant's boxes, the box and the kernels are the user's."""

import shutil
import subprocess

import pytest

from uffdlab.machines.vagrant_vm import VagrantVm

PROVIDERS = ("uffdlab_qemu", "libvirt")


def pytest_collection_modifyitems(items):
    for item in items:
        if "tests/vagrant/" in str(item.path):
            item.add_marker(pytest.mark.vagrant)


@pytest.fixture(scope="session", autouse=True)
def _tools():
    missing = [program for program in ("vagrant", "qemu-img", "mmdebstrap") if shutil.which(program) is None]
    if missing:
        pytest.fail(f"{', '.join(missing)} missing: run `make test-vagrant`, which installs them")


@pytest.fixture(scope="module", params=PROVIDERS)
def vm(request, tmp_path_factory):
    """A VM of this module's own that is not there yet; destroyed in the end."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("vagrant")
        patch.setenv("VAGRANT_DOTFILE_PATH", str(folder))
        patch.setenv("VAGRANT_DEFAULT_PROVIDER", request.param)
        made = VagrantVm()
        made.provider = request.param
        yield made
        made.destroy()
        left = subprocess.run(["pgrep", "-af", str(folder)], capture_output=True, text=True, check=False).stdout
        assert left == "", "destroyed, and yet there is"
