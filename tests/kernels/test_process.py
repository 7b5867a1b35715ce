"""Children that end when we do."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from uffdlab.kernels.process import Child, ChildTimeout, run

from ..processes import alive, gone_within  # noqa: TID252 - tests are no package that is installed


def test_status_lines_and_tail():
    seen = []
    status, tail = run(["sh", "-c", "echo one; echo two >&2; printf three; exit 7"], deadline=20, on_line=seen.append)
    assert status == 7
    assert seen == ["one", "two", "three"]
    assert tail == "one\ntwo\nthree"


def test_deadline_ends_the_whole_group():
    began = time.monotonic()
    pids = []
    with pytest.raises(ChildTimeout):
        run(["sh", "-c", "sleep 60 & echo $!; wait"], deadline=0.5, on_line=lambda line: pids.append(int(line)))
    assert time.monotonic() - began < 15
    assert gone_within(20, pids[0])


def test_exception_in_a_callback_ends_the_child():
    pids = []

    def stop(line):
        pids.append(int(line))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(["sh", "-c", "echo $$; sleep 60"], deadline=60, on_line=stop)
    assert gone_within(20, pids[0])


def test_a_child_that_ignores_sigterm_is_killed_and_not_clean(monkeypatch):
    monkeypatch.setattr("uffdlab.kernels.process._GRACE", 0.3)
    with (
        Child(["sh", "-c", "trap '' TERM; echo up; while :; do sleep 0.1; done"]) as child,
        pytest.raises(ChildTimeout),
    ):
        child.wait(1.0)
    assert not child.clean


def test_sigkill_of_the_parent_ends_the_child():
    code = (
        "from uffdlab.kernels.process import run\n"
        "run(['sh', '-c', 'echo $$; exec sleep 60'], deadline=60, on_line=lambda line: print(line, flush=True))\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    pid = int(parent.stdout.readline())
    assert alive(pid)
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait(20)
    parent.stdout.close()
    assert gone_within(20, pid)
