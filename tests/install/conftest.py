"""Bare systems, and the wheel of this checkout.  build/install keeps the images: a second run is shorter."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.install import containers as module

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "build" / "install"


def pytest_collection_modifyitems(items):
    for item in items:
        if "tests/install/" in str(item.path):
            item.add_marker(pytest.mark.install)
            item.add_marker(pytest.mark.timeout(5400))


@pytest.fixture(scope="session")
def containers():
    missing = [program for program in ("podman", "runc", "mmdebstrap") if shutil.which(program) is None]
    if missing:
        pytest.fail(f"{', '.join(missing)} missing: run `make test-install`, which installs them")
    FOLDER.mkdir(parents=True, exist_ok=True)
    containers = module.Containers(FOLDER)
    yield containers
    containers.close()


@pytest.fixture(scope="session")
def checkout(tmp_path_factory):
    """Return a copy of the committed files."""
    folder = tmp_path_factory.mktemp("checkout")
    archive = subprocess.run(["git", "archive", "HEAD"], cwd=ROOT, capture_output=True, check=True).stdout
    subprocess.run(["tar", "-x"], cwd=folder, input=archive, check=True)
    return folder


@pytest.fixture(scope="session")
def debian(containers):
    """Return a function that gives the image of a Debian suite, bookworm or trixie."""
    made = {}

    def image(suite):
        if suite not in made:
            made[suite] = f"docker.io/library/debian:{suite}-slim"
            containers.make_debian(suite, made[suite])
        return made[suite]

    return image
