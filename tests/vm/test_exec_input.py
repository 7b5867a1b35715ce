"""`uffdlab exec` with input: from a pipe, a file and a terminal; Ctrl-C while it waits for some."""

import hashlib
import os
import pty
import signal
import subprocess
import sys

import pytest

pytestmark = pytest.mark.vm

EXEC = [sys.executable, "-m", "uffdlab", "exec", "6.1-series", "--"]
SIZE = 3_000_000


def test_a_file_with_every_byte_arrives_as_it_is(tmp_path):
    data = os.urandom(SIZE)
    (tmp_path / "file").write_bytes(data)
    with (tmp_path / "file").open("rb") as file:
        done = subprocess.run([*EXEC, "sha256sum"], stdin=file, capture_output=True, check=True, timeout=120)
    assert done.stdout.split()[0].decode() == hashlib.sha256(data).hexdigest()


def test_a_program_that_does_not_read_its_input_ends():
    endless = "while :; do echo y; done"
    with subprocess.Popen(["sh", "-c", endless], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as writer:
        done = subprocess.run([*EXEC, "true"], stdin=writer.stdout, check=False, timeout=120)
        writer.kill()
    assert done.returncode == 0


@pytest.fixture
def on_terminal():
    """Return a function that starts a program with a terminal of its own as stdin, and the terminal."""
    ours, theirs = pty.openpty()
    started = []

    def start(*command, shell=False):
        # With -m, a shell makes its jobs process groups. Without it, the input of those in the background is /dev/null.
        words = ["sh", "-mc", f"{' '.join([*EXEC, *command])} & wait $!"] if shell else [*EXEC, *command]
        # Only a session's leader can take a terminal, and only its foreground job may read from it.
        leader = (
            "import fcntl, os, sys, termios; os.setsid(); fcntl.ioctl(0, termios.TIOCSCTTY, 0); "
            "os.execvp(sys.argv[1], sys.argv[1:])"
        )
        process = subprocess.Popen(
            [sys.executable, "-c", leader, *words], stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        started.append(process)
        return process

    yield start, ours
    for process in started:
        process.kill()
        process.communicate()
    os.close(ours)
    os.close(theirs)


def test_a_terminal_passes_lines_and_its_end_of_file(on_terminal):
    start, terminal = on_terminal
    process = start("cat")
    os.write(terminal, b"one\ntwo\n\x04")
    output, error = process.communicate(timeout=120)
    assert (process.returncode, output) == (0, b"one\ntwo\n"), error


def test_ctrl_c_ends_a_program_that_waits_for_its_input(on_terminal):
    start, terminal = on_terminal
    process = start("sh", "-c", "echo up; cat")
    assert process.stdout.readline() == b"up\n"
    os.write(terminal, b"\x03")
    _, error = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGINT
    assert error.endswith(b"uffdlab: stopped\n")
    assert b"Traceback" not in error


def test_in_the_background_of_a_terminal_it_has_no_input(on_terminal):
    start, _ = on_terminal
    process = start("cat", shell=True)
    process.communicate(timeout=120)
    assert process.returncode == 0
