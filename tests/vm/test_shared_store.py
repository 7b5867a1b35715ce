"""A second user runs an experiment on a kernel of a store that they can only read."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.other_user import NOBODY, listing, open_folder
from uffdlab import kernels
from uffdlab.kernels import shared_store

pytestmark = [pytest.mark.vm, pytest.mark.timeout(600)]

KERNEL = "debian/trixie"
PYTHON = Path("/usr/bin/python3")  # other users cannot run a Python in the home of root
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def as_nobody():
    """Return a command that runs a program as nobody, and the environment for our Python packages."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    if os.geteuid() or shutil.which("setpriv") is None or not PYTHON.exists():
        pytest.skip("this needs root, setpriv and the system's Python")
    command = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", PYTHON, "-B"]
    packages = next(path for path in map(Path, sys.path) if path.name == "site-packages")
    environment = {"PATH": os.defpath, "PYTHONPATH": f"{ROOT}:{packages}"}
    code = "import sys, uffdlab, numpy; print('%d.%d' % sys.version_info[:2])"
    tried = subprocess.run([*command, "-c", code], env=environment, capture_output=True, text=True, check=False)
    if tried.stdout.strip() != version:
        pytest.skip(f"other users cannot run this environment: {tried.stdout}{tried.stderr}")
    return command, environment


def test_a_second_user_runs_minor_wp_from_a_shared_store(as_nobody):
    command, environment = as_nobody
    with open_folder() as folder:
        store, home = folder / "store", folder / "home"
        shared_store.share(kernels.Supply().finished(KERNEL), store)
        home.mkdir()
        os.chown(home, NOBODY, NOBODY)
        before = listing(store)
        done = subprocess.run(
            [*command, "-m", "uffdlab", "run", "minor_wp", KERNEL],
            env={**environment, "HOME": str(home), "UFFDLAB_IMAGES": str(store)},
            cwd="/",
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=500,
            check=False,
        )
        assert (done.returncode, "64 of 64 checks hold" in done.stdout) == (0, True), done.stdout
        assert listing(store) == before
        assert list(home.glob(".cache/uffdlab/machines/*.state"))
        assert not (home / ".cache" / "uffdlab" / "images").exists()
