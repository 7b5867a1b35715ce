"""Exit statuses of the command line, as `git bisect run` and make read them."""

import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

from uffdlab.cli import exit_status
from uffdlab.cli.main import COMMANDS, main
from uffdlab.errors import BuildError, HostUnsupported, MachineLost, ProgramError, TargetLost, UnknownKernel, UsageError


def test_help_loads_no_command():
    code = (
        "import sys\nfrom uffdlab.cli.main import main\nmain(['--help'], standalone_mode=False)\n"
        "print(sorted(sys.modules), file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert all(f"  {name}" in done.stdout for name in COMMANDS)
    loaded = set(eval(done.stderr))
    assert "uffdlab.cli.main" in loaded
    assert not loaded & {"numpy", "msgpack", "uffdlab.lab", "uffdlab.kernels", "IPython"}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_listed_command_has_help(name):
    result = CliRunner().invoke(main, [name, "--help"], prog_name="uffdlab")
    assert (result.exit_code, f"Usage: uffdlab {name}" in result.output) == (0, True)
    help_text = COMMANDS[name].load().help.replace("\n", " ")
    assert help_text.startswith(COMMANDS[name].short_help.rstrip(".")) or name in {"exec", "selftest"}


@pytest.mark.parametrize(
    ("error", "booted", "status"),
    [
        (MachineLost("gone"), False, 125),
        (MachineLost("gone"), True, 1),
        (HostUnsupported("no QEMU"), True, 1),
        (UsageError("no"), True, 2),
        (ProgramError("late", kind="program-late"), True, 124),
        (ProgramError("no", kind="not-executable"), True, 126),
        (ProgramError("none", kind="no-program"), True, 127),
        (ProgramError("much", kind="program-output"), True, 1),
    ],
)
def test_each_error_has_its_exit_status(error, booted, status):
    assert exit_status.of(error, booted=booted) == status


def test_notes_of_an_error_are_shown(capsys):
    def fail():
        error = MachineLost("gone")
        error.add_note("the last line of its console")
        with exit_status.from_errors("6.1-base"):
            raise error

    with pytest.raises(click.exceptions.Exit):
        fail()
    assert capsys.readouterr().err == "6.1-base: gone\nthe last line of its console\n"


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (HostUnsupported("no QEMU"), 125),
        (BuildError("6.1-base: make failed"), 125),
        (MachineLost("the machine is gone"), 125),
        (TargetLost("the target has ended"), 1),
        (UnknownKernel("no kernel is named so"), 2),
        (UsageError("that is no machine"), 2),
    ],
)
def test_the_exit_status_is_125_if_a_kernel_cannot_be_tested(monkeypatch, error, status):
    def fail(_name):
        raise error

    monkeypatch.setattr("uffdlab.lab.Lab", fail)
    result = CliRunner().invoke(main, ["run", "minor_wp", "6.1-base"])
    assert result.exit_code == status
    assert str(error) in result.output
    assert "6.1-base: 6.1-base" not in result.output
    assert "Traceback" not in result.output


def test_a_missing_output_folder_is_reported_first(tmp_path):
    result = CliRunner().invoke(main, ["run", "minor_wp", "6.1-base", "--output", str(tmp_path / "none" / "x")])
    assert (result.exit_code, "none/x cannot be written: No such file" in result.output) == (2, True)


def test_the_exit_status_after_ctrl_c_is_130(monkeypatch):
    def interrupted(_name):
        raise KeyboardInterrupt

    monkeypatch.setattr("uffdlab.lab.Lab", interrupted)
    result = CliRunner().invoke(main, ["run", "minor_wp", "6.1-base"], prog_name="uffdlab")
    assert (result.exit_code, result.stderr) == (130, "\nuffdlab: stopped\n")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["6.1-base", "ls", "-l", "a b"], "uffdlab exec 6.1-base -- ls -l 'a b'"),
        (["--cpus", "2", "6.1-base", "ls", "-l"], "uffdlab exec KERNEL -- COMMAND…"),
        (["6.1-base", "--nothing", "--", "ls", "-l"], ""),
    ],
)
def test_an_option_for_the_program_needs_two_dashes_before_it(arguments, expected):
    result = CliRunner().invoke(main, ["exec", *arguments], prog_name="uffdlab")
    assert result.exit_code == 2
    assert "No such option" in result.output
    advice = result.output.partition("put -- before the program: ")[2].strip()
    assert advice == expected
