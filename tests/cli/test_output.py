"""What a command prints: help by either option, and one line if its output cannot be written."""

import subprocess
import sys
from pathlib import Path

import pytest

UFFDLAB = [sys.executable, "-m", "uffdlab"]


@pytest.mark.parametrize("command", [[], ["kernel"], ["kernel", "list"], ["run"]], ids=" ".join)
def test_h_is_help(command):
    shown = [
        subprocess.run([*UFFDLAB, *command, option], capture_output=True, text=True, check=True, timeout=60).stdout
        for option in ("-h", "--help")
    ]
    assert shown[0] == shown[1]
    assert "-h, --help" in shown[0]


def test_h_after_a_program_is_the_programs():
    command = [*UFFDLAB, "exec", "6.1-series", "df", "-h"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2
    assert "put -- before the program" in done.stderr


@pytest.mark.parametrize("command", [["--help"], ["--version"], ["kernel", "list"]], ids=" ".join)
def test_output_that_cannot_be_written_is_an_error_in_one_line(command):
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*UFFDLAB, *command], stdout=full, stderr=subprocess.PIPE, text=True, check=False, timeout=60
        )
    assert done.returncode == 1
    assert done.stderr == "uffdlab: the output cannot be written: No space left on device\n"


def test_closed_streams_are_opened_before_anything_gets_their_numbers():
    code = (
        "import os; from uffdlab.cli.main import main; main(['--version'], standalone_mode=False); os._exit(os.dup(0))"
    )
    done = subprocess.run(
        ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", sys.executable, "-c", code], check=False, timeout=60
    )
    assert done.returncode == 3
