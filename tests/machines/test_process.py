"""A kept process ends with its owner, and what it said is told."""

import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from uffdlab.machines.console import Console
from uffdlab.machines.process import KeptProcess


def start(code):
    ours, theirs = socket.socketpair()
    log = Console()
    with theirs:
        process = KeptProcess([sys.executable, "-ISc", code, str(theirs.fileno())], [theirs.fileno()], ours, log=log)
    return process, log


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def wait_until(condition, seconds=5.0):
    until = time.monotonic() + seconds
    while not condition() and time.monotonic() < until:
        time.sleep(0.01)
    return condition()


def test_the_console_arrives():
    process, log = start("import socket,sys; socket.socket(fileno=int(sys.argv[1])).sendall(b'hello from inside')")
    assert process.ended.wait(10)
    assert log.text() == "hello from inside"
    assert process.how_it_ended() == "ended with status 0"
    process.kill()


def test_stderr_is_told():
    process, _log = start("import sys; print('no such machine', file=sys.stderr); sys.exit(3)")
    assert process.ended.wait(10)
    assert process.how_it_ended() == "ended with status 3: no such machine"
    process.kill()


def test_a_flood_of_stderr_is_bounded():
    process, _log = start("import sys; sys.stderr.write('x' * (1 << 20)); sys.exit(1)")
    assert process.ended.wait(10)
    assert len(process.how_it_ended()) < 20_000
    process.kill()


def test_a_signal_is_told():
    process, _log = start("import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    assert process.ended.wait(10)
    assert process.how_it_ended().startswith("was killed by signal 9, ")
    process.kill()


def test_kill_leaves_nothing():
    before = len(list(Path("/proc/self/fd").iterdir()))
    process, _log = start("import time; time.sleep(100)")
    keeper = process._keeper.pid
    children = f"/proc/{keeper}/task/{keeper}/children"
    assert wait_until(lambda: Path(children).read_text())
    child = int(Path(children).read_text())
    assert process.how_it_ended() == ""
    process.kill()
    process.kill()
    assert not alive(child)
    assert not alive(keeper)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_program_that_is_not_there(tmp_path):
    ours, theirs = socket.socketpair()
    with theirs:
        process = KeptProcess([str(tmp_path / "none")], [], ours, log=Console())
    assert process.ended.wait(10)
    assert "No such file" in process.how_it_ended()
    process.kill()


OWNER = """
import socket, sys, time
from uffdlab.machines.console import Console
from uffdlab.machines.process import KeptProcess
ours, theirs = socket.socketpair()
process = KeptProcess([sys.executable, "-ISc", "import time; print(1); time.sleep(100)"], [], ours, log=Console())
keeper = process._keeper.pid
while True:
    with open(f"/proc/{keeper}/task/{keeper}/children") as file:
        children = file.read().split()
    if children:
        break
print(keeper, *children, flush=True)
time.sleep(100)
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_the_owner_dies(how):
    with subprocess.Popen([sys.executable, "-c", OWNER], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as owner:
        found = [int(word) for word in owner.stdout.readline().split()]
        assert len(found) == 2
        assert all(alive(pid) for pid in found)
        owner.send_signal(how)
        assert wait_until(lambda: not any(alive(pid) for pid in found), 1.0)


def test_the_owner_dies_before_the_keeper_looks():
    # The keeper is told to keep for a process that is not its parent: as if that had just ended.
    other = subprocess.Popen([sys.executable, "-c", "pass"])
    other.wait()
    from uffdlab.machines import keeper

    started = time.monotonic()
    with subprocess.Popen(
        [
            sys.executable,
            "-ISB",
            keeper.__file__,
            str(other.pid),
            "-1",
            "0",
            "/nowhere",
            sys.executable,
            "-c",
            "import time; time.sleep(100)",
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout.read() == b"9\n"
    assert time.monotonic() - started < 10


FOLDER_OWNER = """
import sys, time
from uffdlab.machines.console import Console
from uffdlab.machines.process import KeptProcess
process = KeptProcess([sys.executable, "-ISc", "import time; time.sleep(100)"], log=Console())
process.folder.mkdir(mode=0o700)
(process.folder / "socket").touch()
print(process.folder, flush=True)
time.sleep(100)
"""


def test_the_folder_goes_with_the_process_also_when_the_owner_is_killed():
    with subprocess.Popen([sys.executable, "-c", FOLDER_OWNER], stdout=subprocess.PIPE, text=True) as owner:
        folder = Path(owner.stdout.readline().strip())
        assert folder.is_dir()
        owner.kill()
        assert wait_until(lambda: not folder.exists())


def test_a_grace_is_given_and_then_no_more():
    for code, grace, least, most in (
        ("import sys; sys.stdin.read()", 20.0, 0.0, 10.0),  # it ends with its stream
        ("import time; time.sleep(100)", 1.0, 0.9, 10.0),
    ):
        ours, theirs = socket.socketpair()
        with theirs:
            process = KeptProcess([sys.executable, "-ISc", code], log=Console(), stdio=theirs, grace=grace)
        started = time.monotonic()
        ours.close()
        process.kill()
        assert least < time.monotonic() - started < most
