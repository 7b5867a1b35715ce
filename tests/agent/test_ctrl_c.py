"""Ctrl-C while a touch is waited for ends the wait and nothing else."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

SCRIPT = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
from uffdlab.lab import Lab
with Lab(machine="local") as lab, lab.userfaultfd() as uffd:
    region = lab.map(pages=2)
    uffd.register(region, "missing")
    touch = region.read(0)
    try:
        print("waits", flush=True)
        touch.result(60)
    except KeyboardInterrupt:
        print("interrupted;", touch.state, [each.what for each in lab.touches] == [touch.what])
    print(uffd.read_fault())
    uffd.zeropage(region)
    print(touch.result(), touch.state, region.read(1).result())
"""


def sleeps(process):
    """Return whether the main thread of a process sleeps."""
    return Path(f"/proc/{process.pid}/task/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] == "S"


def test_the_touch_goes_on_waiting_and_the_lab_can_be_used(host_lab):
    # Its own session: as from a terminal, the signal goes to every process of the group.
    with subprocess.Popen(
        [sys.executable, "-c", SCRIPT],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            assert process.stdout.readline() == "waits\n"
            until = time.monotonic() + 30
            while not sleeps(process) and time.monotonic() < until:
                time.sleep(0.01)
            os.killpg(process.pid, signal.SIGINT)
            printed, errors = process.communicate(timeout=60)
        finally:
            process.kill()
    assert printed.splitlines() == ["interrupted; waiting True", "Fault(page=0, read, missing)", "0 done 0"], errors
    assert process.returncode == 0, errors
