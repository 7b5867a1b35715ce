"""`make demo` stopped by Ctrl-C."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def recipe():
    """Return the command that make runs."""
    found = re.search(r"^demo: .*\n\t.*&& (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    return found[1].replace("$(python)", sys.executable).split()


@pytest.mark.parametrize("seconds", [0, 0.3, 3])
def test_ctrl_c_ends_the_demo_without_a_traceback(tmp_path, seconds):
    # The package manager never ends.  The demo waits for it after the first second.
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "apt-get").write_text("#!/bin/sh\nexec sleep 100\n")
    (tmp_path / "bin" / "apt-get").chmod(0o755)
    environment = os.environ | {
        "PATH": f"{tmp_path}/bin:{os.environ['PATH']}",
        "UFFDLAB_CACHE": str(tmp_path / "cache"),
    }
    with subprocess.Popen(
        # A shell that starts pytest in the background makes it ignore SIGINT.
        ["env", "--default-signal=INT", *recipe(), "--out", tmp_path / "out"],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        process_group=0,
    ) as demo:
        exe = Path(f"/proc/{demo.pid}/exe")
        while exe.readlink().name == "env" or not exe.readlink().name.startswith("python"):
            time.sleep(0.001)
        time.sleep(seconds)
        os.killpg(demo.pid, signal.SIGINT)
        output = demo.communicate(timeout=60)[0]
    assert "Traceback" not in output
    assert demo.returncode == 130, output
    assert "demo: stopped" in output
