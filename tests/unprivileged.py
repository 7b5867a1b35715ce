"""A lab on this host's kernel whose agent runs as an unprivileged user."""

import contextlib
import errno
import os
import shutil
import tempfile
from pathlib import Path

import pytest

from uffdlab.agent import deferred
from uffdlab.errors import IoctlError
from uffdlab.lab import Lab
from uffdlab.machines import ssh
from uffdlab.machines.python_modules import modules
from uffdlab.machines.stream import StreamMachine

UNPRIVILEGED = "local, unprivileged"  # the parameter `lab` of a test that runs on one
NOBODY = "65534"
SYSCTL = Path("/proc/sys/vm/unprivileged_userfaultfd")
# The system's: other users cannot run a Python in the home of root.
PYTHON = "/usr/bin/python3"


@contextlib.contextmanager
def unprivileged_lab(first=""):
    """Return a lab whose agent runs as an unprivileged user; `first` is Python code that it runs first.

    If this user is not root, the agent runs as this user.
    """
    if not SYSCTL.exists() or not Path(PYTHON).exists() or not shutil.which("setpriv"):
        pytest.skip("no userfaultfd, no python3 of the system, or no setpriv here")
    folder = Path(tempfile.mkdtemp())
    try:
        for name, origin, package in modules("uffdlab.agent.stdio", *deferred.NAMES):
            if name.partition(".")[0] not in ssh._SENT_WITH_AGENT:
                continue
            path = folder / name.replace(".", "/")
            path = path / "__init__.py" if package else path.parent / origin.name
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(origin, path)
        folder.chmod(0o755)
        program = (
            f"{first}\nimport sys; sys.path.insert(0, {str(folder)!r}); from uffdlab.agent.stdio import main; main()"
        )
        command = [] if os.geteuid() else ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
        with Lab(machine=StreamMachine([*command, PYTHON, "-IB", "-c", program], "local").wait_until_started()) as lab:
            yield lab
    finally:
        shutil.rmtree(folder)


def needs_root(error):
    """Return whether only root may do what was refused."""
    if isinstance(error, IoctlError):
        return error.errno == errno.EPERM
    return "which root has" in str(error) or "only root can" in str(error)
