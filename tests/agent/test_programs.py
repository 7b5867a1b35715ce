"""Programs of the agent, run on this host: their output, their end, and that nothing of them is left."""

import contextlib
import queue
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from uffdlab.errors import ProgramError, UsageError
from uffdlab.machines import local
from uffdlab.machines.programs import Execution, Programs
from uffdlab.uapi.protocol.agent import Ping, SpawnTarget


@pytest.fixture(scope="module")
def machine():
    machine = local.start()
    yield machine
    machine.close()


@pytest.fixture
def run(machine):
    yield Programs(lambda: machine).run
    assert not list(Path("/tmp").glob(f"uffdlab-{machine.hello.pid}-*"))


def gone(pid, seconds=5.0):
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return True
        if state == "Z":
            return True
        time.sleep(0.01)
    return False


def test_both_streams_and_the_status(run):
    done = run(["sh", "-c", "echo out; echo err >&2; exit 7"])
    assert isinstance(done, Execution)
    assert (done.status, done.stdout, done.stderr, done.text) == (7, b"out\n", b"err\n", "out\n")


@pytest.mark.parametrize(("signal", "status"), [("TERM", 143), ("KILL", 137), ("SEGV", 139)])
def test_a_program_ended_by_a_signal_has_128_plus_its_number_as_status(run, signal, status):
    assert run(["sh", "-c", f"kill -{signal} $$"]).status == status


@settings(max_examples=10, deadline=None)
@given(data=st.binary(max_size=300_000))
def test_pushed_bytes_come_back_as_they_are(machine, tmp_path_factory, data):
    file = tmp_path_factory.mktemp("push") / "data"
    file.write_bytes(data)
    assert Programs(lambda: machine).run(["cat", "data"], [file]).stdout == data


def test_a_pushed_program_is_found_and_keeps_its_mode(run, tmp_path):
    script = tmp_path / "hello"
    script.write_text("#!/bin/sh\nread line && echo never; echo $0 $1 $VALUE; pwd\n")
    with pytest.raises(ProgramError, match="not executable") as caught:
        run(["./hello"], [script])
    assert caught.value.kind == "not-executable"
    script.chmod(0o755)
    for name in ("hello", "./hello"):
        done = run([name, "you"], [script], env={"VALUE": "12"})
        assert done.text.splitlines()[0].endswith("hello you 12")
    assert done.text.splitlines()[1].startswith("/tmp/uffdlab-")


def test_no_such_program(run):
    with pytest.raises(ProgramError, match="no program 'no-such-thing'") as caught:
        run(["no-such-thing"])
    assert caught.value.kind == "no-program"


def test_no_program_at_all(run, tmp_path):
    text = tmp_path / "text"
    text.write_text("not a program")
    text.chmod(0o755)
    with pytest.raises(ProgramError, match="does not start") as caught:
        run(["text"], [text])
    assert caught.value.kind == "not-executable"


def test_one_that_never_ends_is_killed_with_its_children(run):
    with pytest.raises(ProgramError, match=r"it had 0\.5 s") as caught:
        run(["sh", "-c", "sleep 1000 & echo $! $$; sleep 1000"], deadline=0.5)
    assert caught.value.kind == "program-late"
    pids = caught.value.stdout.split()
    assert len(pids) == 2
    assert all(gone(int(pid)) for pid in pids)


def test_what_it_leaves_in_the_background_is_killed(run):
    began = time.monotonic()
    done = run(["sh", "-c", "sleep 1000 & echo $!"])
    assert time.monotonic() - began < 30
    assert gone(int(done.stdout))


def test_one_that_writes_too_much(run):
    with pytest.raises(ProgramError, match="100000 bytes") as caught:
        run(["yes"], most_output=100_000)
    assert caught.value.kind == "program-output"
    assert caught.value.stdout == b"y\n" * 50_000


def test_output_comes_while_it_runs(run, tmp_path):
    received = queue.SimpleQueue()
    gate = tmp_path / "gate"
    line = f"echo first; while ! [ -e {gate} ]; do sleep 0.05; done; echo second >&2"
    thread = threading.Thread(
        target=run, args=(["sh", "-c", line],), kwargs={"on_output": lambda *it: received.put(it)}
    )
    thread.start()
    assert received.get(timeout=30) == ("stdout", b"first\n")
    assert received.empty()
    gate.touch()
    assert received.get(timeout=30) == ("stderr", b"second\n")
    thread.join(30)


def test_a_listener_that_fails_ends_the_program(run):
    pids = []

    def fail(_stream, data):
        pids.append(int(data))
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        run(["sh", "-c", "echo $$; sleep 1000"], on_output=fail)
    assert gone(pids[0])


def test_two_at_once_and_other_calls_meanwhile(run, machine):
    ends = queue.SimpleQueue()
    line = "for n in 1 2 3 4 5 6 7 8; do echo $0$n; sleep 0.05; done"
    threads = [threading.Thread(target=lambda n=n: ends.put(run(["sh", "-c", line, n]))) for n in "ab"]
    for thread in threads:
        thread.start()
    assert machine.ask(Ping(5)) == 5
    texts = sorted(ends.get(timeout=30).text.split() for _ in threads)
    assert texts == [[f"{each}{n}" for n in range(1, 9)] for each in "ab"]


def open_files(pid):
    """Return what the descriptors of a process are open for."""
    found = set()
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            found.add(fd.readlink())
    return found


def test_a_new_target_has_no_pipe_of_a_running_program(machine, run, tmp_path):
    output, gate = queue.SimpleQueue(), tmp_path / "gate"
    line = f"echo $$; while ! [ -e {gate} ]; do sleep 0.05; done"
    thread = threading.Thread(target=run, args=(["sh", "-c", line],), kwargs={"on_output": lambda *it: output.put(it)})
    thread.start()
    try:
        _, pid = output.get(timeout=30)
        pipes = {Path(f"/proc/{int(pid)}/fd/{fd}").readlink() for fd in (1, 2)}
        target = machine.ask(SpawnTarget(b"n" * 32, 0x10_0000_0000)).pid
        until = time.monotonic() + 20  # it closes what it must not have after the fork
        while not pipes.isdisjoint(open_files(target)) and time.monotonic() < until:
            time.sleep(0.02)
        assert pipes.isdisjoint(open_files(target))
    finally:
        gate.touch()
        thread.join(30)


def test_children_are_waited_for_also_where_the_user_ignores_theirs():
    """As some servers do (SIGCHLD in sigaction(2)): the programs that they start inherit it."""
    script = """
        import signal
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        from uffdlab.lab import Lab
        with Lab(machine="local") as lab:
            print(lab.exec(["sh", "-c", "exit 7"]).status)
            with lab.fork():
                pass
            lab.restart_target()
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.stdout, done.returncode) == ("7\n", 0), done.stderr


def test_it_dies_with_the_host():
    machine = local.start()
    received = queue.SimpleQueue()

    def run():
        with pytest.raises(Exception, match="closed"):
            Programs(lambda: machine).run(
                ["sh", "-c", "echo $$; pwd; sleep 1000"], on_output=lambda _s, data: received.put(data)
            )

    thread = threading.Thread(target=run)
    thread.start()
    output = received.get(timeout=30)
    while output.count(b"\n") < 2:
        output += received.get(timeout=30)
    machine.close()
    thread.join(30)
    pid, folder = output.split()
    assert gone(int(pid))
    assert not Path(folder.decode()).exists()


@pytest.mark.parametrize(
    ("command", "more", "says"),
    [
        ("uname -r", {}, "give a list of arguments"),
        ([], {}, "give a list of arguments"),
        (["a\0b"], {}, "NUL"),
        (["true"], {"push": ["/nonexistent"]}, "is not a file here"),
        (["true"], {"push": ["/etc/hostname", "/proc/sys/kernel/hostname"]}, "two files are called hostname"),
        (["true"], {"push": ["/proc/self/mem"]}, "cannot be read here"),
        (["true"], {"deadline": 0}, "more than 0 seconds"),
        (["true"], {"most_output": -1}, "most_output=-1"),
        (["true"], {"env": {"A": "b\0c"}}, "without NUL"),
    ],
)
def test_bad_usage(run, command, more, says):
    with pytest.raises(UsageError, match=says):
        run(command, **more)
