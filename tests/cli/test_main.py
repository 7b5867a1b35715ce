"""Exit statuses of the command line, as `git bisect run` and make read them."""

import pytest
from click.testing import CliRunner

import uffdlab.lab
from uffdlab.cli.main import main
from uffdlab.errors import BuildError, HostUnsupported, MachineLost, TargetLost, UnknownKernel, UsageError


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
def test_a_kernel_that_cannot_be_tested_is_125(monkeypatch, error, status):
    def fail(_name):
        raise error

    monkeypatch.setattr(uffdlab.lab, "Lab", fail)
    result = CliRunner().invoke(main, ["run", "minor_wp", "6.1-base"])
    assert result.exit_code == status
    assert str(error) in result.output
    assert "6.1-base: 6.1-base" not in result.output
    assert "Traceback" not in result.output


def test_a_folder_for_the_output_that_is_not_there_is_said_first(tmp_path):
    result = CliRunner().invoke(main, ["run", "minor_wp", "6.1-base", "--output", str(tmp_path / "none" / "x")])
    assert (result.exit_code, "there is no folder" in result.output) == (2, True)


def test_ctrl_c_is_130(monkeypatch):
    def interrupted(_name):
        raise KeyboardInterrupt

    monkeypatch.setattr(uffdlab.lab, "Lab", interrupted)
    result = CliRunner().invoke(main, ["run", "minor_wp", "6.1-base"], prog_name="uffdlab")
    assert (result.exit_code, result.stderr) == (130, "\nuffdlab: stopped\n")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["6.1-base", "ls", "-l", "a b"], "uffdlab exec 6.1-base -- ls -l 'a b'"),
        (["--cpus", "2", "6.1-base", "ls", "-l"], "uffdlab exec KERNEL -- COMMAND…"),
        (["6.1-base", "--nothing", "--", "ls", "-l"], ""),
    ],
)
def test_an_option_of_the_program_without_two_dashes(words, says):
    result = CliRunner().invoke(main, ["exec", *words], prog_name="uffdlab")
    assert result.exit_code == 2
    assert "No such option" in result.output
    told = result.output.partition("put -- before the program: ")[2].strip()
    assert told == says
