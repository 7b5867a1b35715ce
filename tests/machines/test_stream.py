"""An agent on the stdin and stdout of a process, and the ways in which this fails."""

import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path

import pytest

from uffdlab import errors
from uffdlab.machines import local
from uffdlab.machines.python_modules import module_path
from uffdlab.machines.stream import StreamMachine
from uffdlab.uapi.protocol.agent import Ping, SpawnTarget

from ..leftovers import alive, gone_within, open_resources


def machine(code):
    return StreamMachine([sys.executable, "-ISB", "-c", textwrap.dedent(code), *module_path()], "test")


# An agent with methods that print, read stdin, and take long.
AGENT = """
    import sys
    sys.path[:] = sys.argv[1:]
    from uffdlab.agent import commands, stdio
    commands.METHODS["test.print"] = lambda: print("printed text", flush=True)
    commands.METHODS["test.input"] = lambda: sys.stdin.read()
    commands.METHODS["test.sleep"] = lambda: __import__("time").sleep(60)
    stdio.main()
"""


def test_nothing_but_the_protocol_is_on_the_stream():
    with machine(AGENT).wait_until_started() as agent:
        assert agent.hello.release == os.uname().release
        agent._client.call("test.print", (), 10)
        assert agent._client.call("test.input", (), 10) == ""
        assert agent.ask(Ping(b"\0\xff")) == b"\0\xff"
        until = time.monotonic() + 5
        while "printed" not in agent.console() and time.monotonic() < until:
            time.sleep(0.01)
        assert agent.console() == "printed text\n"


def test_closing_ends_agent_and_target_and_leaves_nothing():
    before = open_resources()
    agent = machine(AGENT).wait_until_started()
    pids = [agent.hello.pid, agent.ask(SpawnTarget(b"n" * 32, 0x10_0000_0000)).pid, agent.pids[0]]
    assert all(alive(pid) for pid in pids)
    agent.close()
    agent.close()
    assert not any(alive(pid) for pid in pids)
    assert open_resources() == before
    with pytest.raises(errors.LabClosed):
        agent.ask(Ping())


def test_an_agent_that_does_not_end_is_killed():
    agent = machine(AGENT).wait_until_started()
    with pytest.raises(errors.MachineTimeout):
        agent._client.call("test.sleep", (), 0.2)
    started = time.monotonic()
    agent.close()
    assert time.monotonic() - started < 60
    assert not alive(agent.hello.pid)


OWNER = """
import sys, time
from uffdlab.machines import local
from uffdlab.machines.python_modules import module_path
machine = local.start()
from uffdlab.uapi.protocol.agent import SpawnTarget
target = machine.ask(SpawnTarget(b"n" * 32, 0x10_0000_0000)).pid
print(machine.hello.pid, target, machine.pids[0], flush=True)
time.sleep(100)
"""


@pytest.mark.parametrize("signal_number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_the_agent_and_its_target_end_with_their_owner(signal_number):
    with subprocess.Popen([sys.executable, "-c", OWNER], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as owner:
        pids = [int(pid) for pid in owner.stdout.readline().split()]
        assert len(pids) == 3
        assert all(alive(pid) for pid in pids)
        owner.send_signal(signal_number)
        assert gone_within(4, *pids)


def test_a_killed_agent_is_reported():
    with machine(AGENT).wait_until_started() as agent:
        os.kill(agent.hello.pid, signal.SIGKILL)
        with pytest.raises(errors.MachineLost, match=r"python\S* was killed by signal 9"):
            agent.ask(Ping())


@pytest.mark.parametrize(
    ("code", "error", "message"),
    [
        ("import sys; sys.exit('no agent is installed')", errors.MachineLost, "status 1: no agent is installed"),
        ("print('Welcome to example!', flush=True); import time; time.sleep(9)", errors.ProtocolError, "malformed"),
        ("import time; time.sleep(60)", errors.MachineTimeout, r"sent nothing within \d+\.\d s"),
    ],
)
def test_a_program_that_is_not_an_agent_is_reported_and_ended(code, error, message):
    before = open_resources()
    # The process that sends nothing gets a short deadline; the others get time to start Python on a busy host.
    deadline = 0.5 if error is errors.MachineTimeout else 20
    with pytest.raises(error, match=message):
        machine(code).wait_until_started(deadline)
    assert open_resources() == before


def test_a_program_that_does_not_exist_is_reported():
    before = open_resources()
    with pytest.raises(errors.HostUnsupported, match="no-such-ssh is not in PATH"):
        StreamMachine(["no-such-ssh"], "test")
    assert open_resources() == before


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("program", "Permission denied"),
        ("link", r" \(that is .*real\): Permission denied"),
        ("folder", "not an executable program"),
        ("nothing", "No such file or directory"),
    ],
)
def test_a_path_that_cannot_be_run_is_not_looked_up_in_path(tmp_path, kind, reason):
    program = tmp_path / "python"
    if kind == "folder":
        program.mkdir()
    elif kind == "program":
        program.write_text("#!/bin/sh\n")
    elif kind == "link":
        (tmp_path / "real").write_text("#!/bin/sh\n")
        program.symlink_to(tmp_path / "real")
    before = open_resources()
    with pytest.raises(errors.HostUnsupported, match=rf"^user \d+ cannot run {program}.*{reason}$") as caught:
        StreamMachine([str(program)], "test")
    assert "PATH" not in str(caught.value)
    assert open_resources() == before


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_the_error_names_an_interpreter_that_this_user_cannot_reach():
    # As in a .venv whose python is a link into the home of another user.
    with tempfile.TemporaryDirectory() as folder:
        locked = Path(folder) / "home"
        locked.mkdir(mode=0o700)
        (locked / "python").symlink_to("/bin/true")
        Path(folder).chmod(0o755)
        (Path(folder) / "python").symlink_to(locked / "python")
        code = (
            "import os, sys\nfrom uffdlab import errors\nfrom uffdlab.machines import local\n"
            "os.setresuid(61234, 61234, 61234)\n"
            f"sys.executable = {folder!r} + '/python'\n"
            "try: local.start()\nexcept errors.HostUnsupported as error: print(error)\n"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == (f"user 61234 cannot run {folder}/python (that is {locked}/python): Permission denied\n"), (
        done.stderr
    )


def test_a_forked_child_can_neither_use_nor_end_the_agent():
    with local.start() as agent:
        child = os.fork()
        if child == 0:
            status = 1
            try:
                agent.ask(Ping())
            except errors.MachineLost:
                agent.close()
                status = 7
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        assert agent.ask(Ping(6)) == 6
