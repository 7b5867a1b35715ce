"""Commands end with the process that started them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from uffdlab.processes.job import Job, JobTimeout, run

from ..leftovers import alive, gone_within, wait_until


def test_run_returns_the_status_and_the_last_lines():
    lines = []
    status, tail = run(["sh", "-c", "echo one; echo two >&2; printf three; exit 7"], deadline=20, on_line=lines.append)
    assert status == 7
    assert lines == ["one", "two", "three"]
    assert tail == "one\ntwo\nthree"


def test_a_deadline_ends_the_whole_process_group():
    began = time.monotonic()
    pids = []
    with pytest.raises(JobTimeout):
        run(["sh", "-c", "sleep 60 & echo $!; wait"], deadline=0.5, on_line=lambda line: pids.append(int(line)))
    assert time.monotonic() - began < 50
    assert gone_within(20, pids[0])


def test_an_exception_in_a_callback_ends_the_child():
    pids = []

    def stop(line):
        pids.append(int(line))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(["sh", "-c", "echo $$; sleep 60"], deadline=60, on_line=stop)
    assert gone_within(20, pids[0])


@pytest.mark.parametrize(
    ("script", "remains"), [("trap '' TERM", True), ("trap 'exit 1' TERM", False), ("true", False)]
)
def test_the_marker_remains_if_the_child_had_to_be_killed(tmp_path, script, remains):
    marker = tmp_path / "marker"
    marker.touch()
    with (
        Job(["sh", "-c", f"{script}; echo up; while :; do sleep 0.1; done"], grace=0.5, marker=marker) as child,
        pytest.raises(JobTimeout),
    ):
        child.wait(1.5)
    assert marker.exists() == remains


@pytest.mark.parametrize(("script", "status"), [("exit 7", 7), ("kill -9 $$", -9), ("kill -15 $$", -15)])
def test_a_marker_does_not_change_the_status_of_the_child(tmp_path, script, status):
    marker = tmp_path / "marker"
    marker.touch()
    with Job(["sh", "-c", f"echo output; {script}"], marker=marker) as child:
        assert child.wait(20) == status
    assert list(child.tail) == ["output"]
    assert marker.exists() == (status == -signal.SIGKILL)


def test_the_child_ends_when_its_parent_is_killed():
    code = (
        "from uffdlab.processes.job import run\n"
        "run(['sh', '-c', 'echo $$; exec sleep 60'], deadline=60, on_line=lambda line: print(line, flush=True))\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    pid = int(parent.stdout.readline())
    assert alive(pid)
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait(20)
    parent.stdout.close()
    assert gone_within(20, pid)


CLEANS_UP = """
import os, signal, sys, time
from pathlib import Path
printed = Path(sys.argv[1])
def on_signal(number, _frame):
    with printed.open("a") as file:
        file.write(f"{number}\\n")
    print("x" * 200_000, flush=True)  # more than a pipe holds
    with printed.open("a") as file:
        file.write("cleaned up\\n")
signal.signal(signal.SIGINT, on_signal)
os.write(1, b"up\\n")  # not by print: the signal may come before that returns, and print cannot run within print
until = time.monotonic() + 60
while "cleaned up" not in (printed.read_text() if printed.exists() else "") and time.monotonic() < until:
    time.sleep(0.01)
time.sleep(0.5)  # for a second signal
"""
OWNER = """
import signal, sys, threading, time
from uffdlab.processes.job import Job
for _ in range(5):
    threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
with Job([sys.executable, "-c", *sys.argv[1:]], stop_signal=signal.SIGINT, grace=20) as child:
    child.wait(60, on_line=lambda line: print(line, flush=True))
"""


@pytest.mark.parametrize("signal_number", [signal.SIGKILL, signal.SIGINT])
def test_a_job_is_signalled_once_when_its_owner_ends_and_can_clean_up(tmp_path, signal_number):
    printed = tmp_path / "printed"
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, CLEANS_UP, printed], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert owner.stdout.readline() == "up\n"
    owner.send_signal(signal_number)
    owner.wait(30)
    owner.stdout.close()
    assert wait_until(lambda: "cleaned up" in (printed.read_text() if printed.exists() else ""), 20)
    time.sleep(0.6)
    assert printed.read_text().split("\n") == [str(int(signal.SIGINT)), "cleaned up", ""]


def test_a_job_that_does_not_end_with_its_owner_is_killed():
    code = (
        "from uffdlab.processes.job import Job\n"
        "command = ['sh', '-c', 'trap : TERM; echo $$; while :; do sleep 0.1; done']\n"
        "with Job(command, grace=0.5) as child:\n"
        "    child.wait(60, on_line=lambda line: print(line, flush=True))\n"
    )
    owner = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    pid = int(owner.stdout.readline())
    owner.kill()
    owner.communicate()
    assert gone_within(20, pid)
