"""A supervised process ends with its owner, and its output is reported."""

import ctypes
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest

from uffdlab.processes import supervisor
from uffdlab.processes.console import Console
from uffdlab.processes.identity import Identity
from uffdlab.processes.supervised import SupervisedProcess

from ..leftovers import alive, gone_within, nothing_left, open_resources, wait_until


def start(code, **options):
    owner_end, program_end = socket.socketpair()
    log = Console()
    with program_end:
        process = SupervisedProcess(
            [sys.executable, "-ISc", code, str(program_end.fileno())],
            [program_end.fileno()],
            owner_end,
            log=log,
            **options,
        )
    return process, log


def test_the_output_of_the_console_is_logged():
    process, log = start("import socket,sys; socket.socket(fileno=int(sys.argv[1])).sendall(b'hello from inside')")
    assert process.ended.wait(10)
    assert log.text() == "hello from inside"
    assert process.how_it_ended() == "ended with status 0"
    process.kill()


def test_the_time_without_a_cpu_is_counted():
    # Two programs on one CPU: each waits while the other runs.
    cpu = min(os.sched_getaffinity(0))
    code = f"import os; os.sched_setaffinity(0, {{{cpu}}})\nwhile True: pass"
    processes = [start(code)[0] for _ in range(2)]
    try:
        assert wait_until(lambda: all(process.seconds_without_cpu() > 0.2 for process in processes), 60)
    finally:
        for process in processes:
            process.kill()
    assert processes[0].seconds_without_cpu() == 0


def test_stderr_is_in_the_error():
    process, _log = start("import sys; print('no such machine', file=sys.stderr); sys.exit(3)")
    assert process.ended.wait(10)
    assert process.how_it_ended() == "ended with status 3: no such machine"
    process.kill()


def test_a_flood_of_stderr_is_bounded():
    process, _log = start("import sys; sys.stderr.write('x' * (1 << 20)); sys.exit(1)")
    assert process.ended.wait(10)
    assert len(process.how_it_ended()) < 20_000
    process.kill()


def test_a_signal_is_in_the_error():
    process, _log = start("import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    assert process.ended.wait(10)
    assert process.how_it_ended().startswith("was killed by signal 9, ")
    process.kill()


def test_kill_leaves_nothing():
    before = len(list(Path("/proc/self/fd").iterdir()))
    process, _log = start("import time; time.sleep(100)")
    supervisor_pid = process.pids[0]
    children = f"/proc/{supervisor_pid}/task/{supervisor_pid}/children"
    assert wait_until(lambda: Path(children).read_text())
    child = int(Path(children).read_text())
    assert process.how_it_ended() == ""
    process.kill()
    process.kill()
    assert not alive(child)
    assert not alive(supervisor_pid)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_program_that_does_not_exist_is_reported(tmp_path):
    owner_end, program_end = socket.socketpair()
    with program_end:
        process = SupervisedProcess([str(tmp_path / "none")], [], owner_end, log=Console())
    assert process.ended.wait(10)
    assert "No such file" in process.how_it_ended()
    process.kill()


INTERRUPTED = """
import errno, os, signal, sys, threading, time
from pathlib import Path
from uffdlab.processes.console import Console
from uffdlab.processes.supervised import SupervisedProcess
import socket

def open_resources():
    return sorted(os.listdir("/proc/self/fd")), Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()

def start_and_kill(interrupted_after=0):
    owner_end, program_end = socket.socketpair()  # an interrupted socketpair() can lose a descriptor
    with owner_end, program_end:
        signal.setitimer(signal.ITIMER_REAL, interrupted_after)
        process = SupervisedProcess([sys.executable, "-ISc", "import time; time.sleep(100)"],
                                    [program_end.fileno()], owner_end, log=Console())
        process.kill()
        signal.setitimer(signal.ITIMER_REAL, 0)

wrong = []
threading.excepthook = lambda args: wrong.append(repr(args.exc_value))
sys.unraisablehook = lambda args: wrong.append(repr(args.exc_value))
signal.signal(signal.SIGALRM, signal.default_int_handler)
start_and_kill()
before = open_resources()
duration = time.monotonic()
start_and_kill()
duration = time.monotonic() - duration
stopped = 0
for number in range(60):
    try:
        start_and_kill(duration * (number + 1) / 60)
    except KeyboardInterrupt:
        stopped += 1
until = time.monotonic() + 10
while (open_resources() != before or threading.active_count() > 1) and time.monotonic() < until:
    time.sleep(0.01)
print(stopped > 20, wrong, open_resources() == before or (before, open_resources()), threading.enumerate()[1:])
"""


def test_ctrl_c_at_any_moment_leaves_nothing():
    done = subprocess.run([sys.executable, "-c", INTERRUPTED], capture_output=True, text=True, timeout=120, check=False)
    assert (done.stdout, done.stderr) == ("True [] True []\n", "")


def test_ctrl_c_during_the_start_of_the_thread_leaves_nothing(monkeypatch):
    # The thread runs, but the start() that started it is interrupted.
    start_thread = threading.Thread.start

    def interrupted(thread):
        start_thread(thread)
        time.sleep(0.2)
        raise KeyboardInterrupt

    before = open_resources()
    monkeypatch.setattr(threading.Thread, "start", interrupted)
    with pytest.raises(KeyboardInterrupt):
        start("import time; time.sleep(100)")
    assert nothing_left(before)


def test_an_unreachable_process_object_ends_its_process():
    before = open_resources()
    process, _log = start("import time; time.sleep(100)")
    pids = process.pids
    assert all(alive(pid) for pid in pids)
    del process
    assert gone_within(5, *pids)
    assert nothing_left(before)


def test_too_few_descriptors_are_reported():
    # Also if the search for a folder of temporary files gets no descriptor.
    code = (
        "import resource, sys, tempfile\n"
        "from uffdlab import errors\n"
        "from uffdlab.processes import limits\n"
        "from uffdlab.processes.console import Console\n"
        "from uffdlab.processes.supervised import SupervisedProcess\n"
        "found = set()\n"
        "for limit in range(3, 40):\n"
        "    tempfile.tempdir = None\n"
        "    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, 64))\n"
        "    try:\n"
        "        with limits.reported():\n"
        "            SupervisedProcess([sys.executable, '-c', ''], log=Console()).kill()\n"
        "        found.add('it runs')\n"
        "        break\n"
        "    except errors.HostUnsupported as error:\n"
        "        found.add(error.missing)\n"
        "print(sorted(found))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert (done.stdout, done.stderr) == ("['files', 'it runs']\n", "")


OWNER = """
import socket, sys, time
from uffdlab.processes.console import Console
from uffdlab.processes.supervised import SupervisedProcess
owner_end, program_end = socket.socketpair()
process = SupervisedProcess([sys.executable, "-ISc", "import time; print(1); time.sleep(100)"], [], owner_end,
                            log=Console())
supervisor = process.pids[0]
while True:
    with open(f"/proc/{supervisor}/task/{supervisor}/children") as file:
        children = file.read().split()
    if children:
        break
print(supervisor, *children, flush=True)
time.sleep(100)
"""


@pytest.mark.parametrize("signal_number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_the_process_ends_with_its_owner(signal_number):
    with subprocess.Popen([sys.executable, "-c", OWNER], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as owner:
        pids = [int(pid) for pid in owner.stdout.readline().split()]
        assert len(pids) == 2
        assert all(alive(pid) for pid in pids)
        owner.send_signal(signal_number)
        assert wait_until(lambda: not any(alive(pid) for pid in pids), 1.0)


def test_the_process_ends_if_its_owner_ended_before_the_supervisor_started():
    # The owner given to the supervisor is not its parent, as if the owner had just ended.
    other = subprocess.Popen([sys.executable, "-c", "pass"])
    other.wait()
    started = time.monotonic()
    with subprocess.Popen(
        [
            argument if not argument.startswith("owner=") else f"owner={other.pid}"
            for argument in supervisor.wrap(
                [sys.executable, "-c", "import time; time.sleep(100)"],
                grace=0,
                owner_pipe=0,
                stdio=-1,
                folder="/nowhere",
                report=1,
            )
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout.read() == b"9\n"
    assert time.monotonic() - started < 60


FOLDER_OWNER = """
import sys, time
from uffdlab.processes.console import Console
from uffdlab.processes.supervised import SupervisedProcess
process = SupervisedProcess([sys.executable, "-ISc", "import time; time.sleep(100)"], log=Console())
process.folder.mkdir(mode=0o700)
(process.folder / "socket").touch()
print(process.folder, flush=True)
time.sleep(100)
"""


def test_the_folder_is_removed_with_the_process_also_when_the_owner_is_killed():
    with subprocess.Popen([sys.executable, "-c", FOLDER_OWNER], stdout=subprocess.PIPE, text=True) as owner:
        folder = Path(owner.stdout.readline().strip())
        assert folder.is_dir()
        owner.kill()
        assert wait_until(lambda: not folder.exists())


def test_a_process_gets_a_grace_period_and_is_then_killed():
    for code, grace, shortest, longest in (
        ("import sys; sys.stdin.read()", 90.0, 0.0, 60.0),  # it ends with its stream
        ("import time; time.sleep(100)", 1.0, 0.9, 60.0),
    ):
        owner_end, program_end = socket.socketpair()
        with program_end:
            process = SupervisedProcess([sys.executable, "-ISc", code], log=Console(), stdio=program_end, grace=grace)
        started = time.monotonic()
        owner_end.close()
        process.kill()
        assert shortest < time.monotonic() - started < longest


# What a bounded program tries: it prints a line with the outcome of each attempt.
ATTEMPTS = """
import ctypes, errno, os, socket, sys
def attempt(name, action):
    try:
        action()
    except OSError as error:
        print(name, errno.errorcode[error.errno], file=sys.stderr)
    else:
        print(name, "done", file=sys.stderr)
folder, port = {folder!r}, {port}
attempt("make", lambda: open(folder + "/made", "w"))
attempt("write", lambda: open(folder + "/there", "r+"))
attempt("remove", lambda: os.unlink(folder + "/there"))
attempt("bind", lambda: socket.socket(socket.AF_UNIX).bind(folder + "/socket"))
attempt("connect", lambda: socket.create_connection(("127.0.0.1", port)))
attempt("read", lambda: open(folder + "/there").read())
memory = os.memfd_create("m")
attempt("memory", lambda: open(f"/proc/self/fd/{{memory}}", "r+b").write(b"x"))
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
print("privileges", status["NoNewPrivs"].strip(), file=sys.stderr)
print("user", os.getresuid(), os.getresgid(), os.getgroups(), status["CapEff"].strip(), file=sys.stderr)
"""


def attempts(folder, **options):
    folder.chmod(0o777)
    (folder / "there").write_text("here")
    (folder / "there").chmod(0o666)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        code = ATTEMPTS.format(folder=str(folder), port=listener.getsockname()[1])
        process = SupervisedProcess(["/usr/bin/python3", "-ISc", code], log=Console(), **options)
        assert process.ended.wait(20)
    process.kill()
    return dict(line.split(" ", 1) for line in process.stderr().splitlines())


@pytest.fixture
def open_folder():
    # Other users can write here; pytest's folders are for their owner only.
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def landlock():
    return ctypes.CDLL(None).syscall(supervisor._CREATE_RULESET, None, ctypes.c_size_t(0), supervisor._VERSION)


def test_a_bounded_program_cannot_write_files_or_gain_privileges(open_folder):
    free = attempts(open_folder)
    assert {free[name] for name in ("make", "write", "remove", "bind", "connect")} == {"done"}
    assert free["privileges"] == "0"
    (open_folder / "socket").unlink()
    bounded = attempts(open_folder, bounded=True)
    assert bounded["privileges"] == "1"
    assert bounded["user"] == free["user"]
    assert (bounded["read"], bounded["memory"]) == ("done", "done")
    if landlock() < 1:
        pytest.skip("no Landlock in this host's kernel")
    assert {bounded[name] for name in ("make", "write", "remove", "bind")} == {"EACCES"}
    assert (open_folder / "there").read_text() == "here"
    if landlock() >= 4:
        assert bounded["connect"] == "EACCES"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_program_started_by_root_runs_as_another_user(open_folder):
    found = attempts(open_folder, bounded=True, identity=Identity(61234, (108,)))
    assert found["user"] == "(61234, 61234, 61234) (61234, 61234, 61234) [108] 0000000000000000"
    assert found["privileges"] == "1"
    assert found["memory"] == "done"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_program_that_the_other_user_cannot_run_is_reported(tmp_path):
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o700)
    process = SupervisedProcess([str(program)], log=Console(), bounded=True, identity=Identity(61234))
    assert process.ended.wait(20)
    assert process.how_it_ended() == f"ended with status 127: {program} as user 61234: Permission denied"
    process.kill()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
@pytest.mark.parametrize("killed", ["supervisor", "owner"])
def test_a_program_of_the_other_user_ends_with_its_supervisor(killed):
    code = OWNER.replace("log=Console()", "log=Console(), bounded=True, identity=Identity(61234)")
    code = code.replace("[sys.executable", '["/usr/bin/python3"')
    code = "from uffdlab.processes.identity import Identity\n" + code
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as owner:
        supervisor_pid, program = (int(pid) for pid in owner.stdout.readline().split())
        assert wait_until(lambda: "\nUid:\t61234" in Path(f"/proc/{program}/status").read_text())
        time.sleep(0.2)  # for the supervised process to execute the program
        os.kill({"supervisor": supervisor_pid, "owner": owner.pid}[killed], signal.SIGKILL)
        assert gone_within(2, supervisor_pid, program)
        owner.kill()
