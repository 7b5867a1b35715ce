"""What a program reads from its stdin, on this host's agent: bytes, files, pipes, and those that read none of it."""

from __future__ import annotations

import io
import os
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from uffdlab.errors import AgentError, ProgramError, UsageError
from uffdlab.machines import local
from uffdlab.machines.programs import Programs
from uffdlab.uapi.protocol.agent import SendProgramInput

LARGE = bytes(range(256)) * (1 << 14)  # 4 MiB, more than any pipe holds


@pytest.fixture(scope="module")
def machine():
    machine = local.start()
    yield machine
    machine.close()


@pytest.fixture
def run(machine):
    def descriptors():
        return len(list(Path("/proc/self/fd").iterdir()))

    def threads():
        return [each.name for each in threading.enumerate() if each.name in {"uffdlab-stdin", "uffdlab-exec"}]

    before = descriptors()
    yield Programs(lambda: machine).run
    assert threads() == []
    assert descriptors() == before


def test_without_input_it_is_empty(run):
    assert run(["cat"]).stdout == b""
    assert run(["readlink", "/proc/self/fd/0"]).text == "/dev/null\n"


@settings(max_examples=10, deadline=None)
@given(data=st.binary(max_size=600_000))
def test_any_bytes_arrive_as_they_are(machine, data):
    assert Programs(lambda: machine).run(["cat"], stdin=data).stdout == data


def test_more_than_a_pipe_holds(run):
    assert run(["cat"], stdin=LARGE).stdout == LARGE


def test_a_file_is_read_from_its_position(run, tmp_path):
    (tmp_path / "file").write_bytes(b"0123456789")
    with (tmp_path / "file").open("rb") as file:
        file.seek(4)
        assert run(["cat"], stdin=file).stdout == b"456789"


def test_a_file_that_only_python_knows(run):
    assert run(["cat"], stdin=io.BytesIO(LARGE)).stdout == LARGE


def test_input_arrives_while_the_program_runs(run):
    # Each line is written when the answer to the line before has come.
    ours, theirs = os.pipe()
    answers = []

    def next_line(_stream, data):
        answers.append(data)
        if len(answers) < 4:
            os.write(theirs, b"line %d\n" % len(answers))
        elif len(answers) == 4:
            os.close(theirs)

    with os.fdopen(ours, "rb", buffering=0) as pipe:
        done = run(["sh", "-c", "echo ready; while read line; do echo got $line; done; echo end"], stdin=pipe,
                   on_output=next_line)  # fmt: skip
    assert done.stdout.splitlines() == [b"ready", b"got line 1", b"got line 2", b"got line 3", b"end"]
    assert done.status == 0


@pytest.mark.parametrize("command", [["true"], ["head", "-c", "3"], ["sh", "-c", "exec <&-; sleep 0.2"]], ids=" ".join)
def test_a_program_that_does_not_read_it_all_ends_as_always(run, command):
    done = run(command, stdin=LARGE)
    assert done.status == 0
    assert done.stdout == LARGE[: len(done.stdout)]


def test_no_more_is_read_than_the_program_takes(run, tmp_path):
    (tmp_path / "file").write_bytes(LARGE)
    with (tmp_path / "file").open("rb", buffering=0) as file:
        run(["sleep", "0.2"], stdin=file)
        assert file.tell() < len(LARGE) // 4


@pytest.mark.parametrize("reads", [True, False])
def test_a_silent_pipe_delays_no_end(run, reads):
    ours, theirs = os.pipe()
    try:
        with os.fdopen(ours, "rb", buffering=0) as pipe:
            if reads:
                with pytest.raises(ProgramError, match="did not end by its deadline"):
                    run(["cat"], stdin=pipe, deadline=0.5)
            else:
                assert run(["true"], stdin=pipe).status == 0
    finally:
        os.close(theirs)


def test_the_deadline_holds_for_a_program_that_does_not_read(run):
    with pytest.raises(ProgramError, match="did not end by its deadline"):
        run(["sleep", "100"], stdin=LARGE, deadline=0.5)


def test_an_exception_in_the_output_ends_the_input_too(run):
    def fail(_stream, _data):
        raise KeyboardInterrupt

    ours, theirs = os.pipe()
    try:
        with os.fdopen(ours, "rb", buffering=0) as pipe, pytest.raises(KeyboardInterrupt):
            run(["sh", "-c", "echo up; cat"], stdin=pipe, on_output=fail)
    finally:
        os.close(theirs)


def test_input_that_cannot_be_read(run, tmp_path):
    folder = _Folder(os.open(tmp_path, os.O_RDONLY))
    with folder, pytest.raises(UsageError, match="stdin cannot be read: Is a directory"):
        run(["cat"], stdin=folder)


class _Folder:
    """A descriptor of a folder, as `command <folder` gives it."""

    def __init__(self, descriptor):
        self.descriptor = descriptor

    def fileno(self):
        return self.descriptor

    def read(self, size):
        return os.read(self.descriptor, size)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        os.close(self.descriptor)


@pytest.mark.parametrize("stdin", ["text", 7, io.StringIO("text"), Path("/etc/hostname")])
def test_what_is_not_bytes_is_refused(run, stdin):
    with pytest.raises(UsageError, match="give bytes"):
        run(["cat"], stdin=stdin)


def test_input_for_no_program_is_dropped(machine):
    machine.ask(SendProgramInput(12345, b"data"))


def test_input_that_nobody_asked_for_is_refused(machine):
    refused = []

    def twice(_stream, _data):
        machine.ask(SendProgramInput(1, LARGE))
        with pytest.raises((AgentError, UsageError), match="has not taken the input before this"):
            machine.ask(SendProgramInput(1, LARGE))
        refused.append(True)
        raise KeyboardInterrupt

    ours, theirs = os.pipe()
    with os.fdopen(ours, "rb", buffering=0) as pipe, pytest.raises(KeyboardInterrupt):
        Programs(lambda: machine).run(["sh", "-c", "echo up; sleep 100"], stdin=pipe, on_output=twice)
    os.close(theirs)
    assert refused
