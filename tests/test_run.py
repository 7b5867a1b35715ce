"""tests/run.py counts the results, and stops a part that hangs with all its processes."""

import importlib.util
import sys
import time
from pathlib import Path

import psutil
import pytest


@pytest.fixture
def runner(tmp_path, monkeypatch):
    spec = importlib.util.spec_from_file_location("runner", Path(__file__).with_name("run.py"))
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "runner", module)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "REPORTS", tmp_path)
    monkeypatch.setattr(module, "GRACE", 2.0)
    return module


def test_the_results_that_pytest_reports_are_counted(runner, tmp_path, monkeypatch):
    report = tmp_path / "some.xml"
    text = '<testsuites><testsuite tests="9" failures="2" errors="1" skipped="3"/></testsuites>'
    write = [sys.executable, "-c", f"open({str(report)!r}, 'w').write({text!r}); exit(1)"]
    monkeypatch.setitem(runner.PARTS, "some", runner.Part([write], 1))
    outcome = runner._run_part("some")
    assert (outcome.passed, outcome.failed, outcome.skipped) == (3, 3, 3)
    assert outcome.why == "exit 1"


def test_a_command_that_fails_without_a_report_has_failed(runner, monkeypatch):
    monkeypatch.setitem(runner.PARTS, "some", runner.Part([[sys.executable, "-c", "exit(5)"]] * 2, 1))
    assert runner._run_part("some").failed == 1


def test_all_commands_of_a_part_run_after_a_failure(runner, tmp_path, monkeypatch):
    touch = [sys.executable, "-c", f"open({str(tmp_path / 'ran')!r}, 'w')"]
    monkeypatch.setitem(runner.PARTS, "some", runner.Part([[sys.executable, "-c", "exit(1)"], touch], 1))
    assert runner._run_part("some").why == "exit 1"
    assert (tmp_path / "ran").exists()


def test_a_part_that_hangs_is_stopped_with_its_children(runner, tmp_path, monkeypatch):
    pid_file = tmp_path / "child"
    script = (
        "import signal, subprocess, sys, time\n"
        "signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        f"open({str(pid_file)!r}, 'w').write(str(child.pid))\n"
        "time.sleep(60)\n"
    )
    monkeypatch.setitem(runner.PARTS, "some", runner.Part([[sys.executable, "-c", script]], 1.5 / 60))
    start = time.monotonic()
    outcome = runner._run_part("some")
    assert outcome.why == "stopped: took too long"
    assert outcome.failed == 1
    assert time.monotonic() - start < 50
    end = time.monotonic() + 5
    while psutil.pid_exists(child := int(pid_file.read_text())) and time.monotonic() < end:
        if psutil.Process(child).status() == psutil.STATUS_ZOMBIE:
            break
        time.sleep(0.05)
    else:
        assert not psutil.pid_exists(child)


def test_kernels_are_built_before_a_part_that_boots_them(runner):
    assert runner._in_order(["browser"]) == ["kernels", "browser"]
    assert runner._in_order(["check", "unit"]) == ["check", "unit"]
    assert runner._in_order(runner.USUAL) == runner.USUAL
    assert set(runner.PARTS) >= runner.BOOTING


def test_an_unknown_part_is_bad_usage(runner, capsys):
    assert runner.main(["nonsense"]) == 2
    assert "there are: check unit kernels vm notebook browser" in capsys.readouterr().err
