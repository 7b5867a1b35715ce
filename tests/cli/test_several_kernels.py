"""Commands on several kernels: what one kernel does not give, and Ctrl-C, leave the results of the others."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from uffdlab import scenarios
from uffdlab.cli.main import main
from uffdlab.errors import BuildError, MachineLost, UsageError
from uffdlab.scenarios import Check, Result
from uffdlab.target.capabilities import Capabilities, Capability

GOOD, CHECK_FAILS, NOT_BUILT, CRASHES, STOPPED, NOT_READ = (
    "6.1-base", "6.1-as-posted", "debian/bookworm", "debian/trixie", "6.1-series", "debian/trixie-backports",
)  # fmt: skip


class FakeLab:
    """A lab that boots nothing; each kernel has its own end."""

    def __init__(self, kernel):
        self.kernel = kernel
        if kernel == NOT_BUILT:
            raise BuildError(f"{kernel}: make failed")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def examine(self):
        if self.kernel == CRASHES:
            raise MachineLost("the machine is gone")
        if self.kernel == STOPPED:
            raise KeyboardInterrupt
        if self.kernel == NOT_READ:
            raise UsageError("that setting is wrong")

    @property
    def capabilities(self):
        self.examine()
        found = Capabilities(self.kernel, 0, 0, False, {}, {}, {})
        found.__dict__["rows"] = (Capability("mode", "UFFDIO_CONTINUE WP", "6.4", 22, there=False),)
        return found


@pytest.fixture
def uffdlab(monkeypatch):
    """Return a function that runs a command with labs that boot nothing."""

    def experiment(lab):
        lab.examine()
        checks = [Check("CONTINUE|WP", "ok", "ok" if lab.kernel == GOOD else "EINVAL")]
        return Result("minor_wp", lab.kernel, "6.1.0", "pagemap", checks, [], {}, None)

    monkeypatch.setattr("uffdlab.lab.Lab", FakeLab)
    monkeypatch.setitem(scenarios.SCENARIOS, "minor_wp", experiment)
    return lambda *arguments: CliRunner().invoke(main, arguments, prog_name="uffdlab")


@pytest.mark.parametrize(
    ("kernels", "status"),
    [
        ([GOOD], 0),
        ([GOOD, CHECK_FAILS], 1),
        ([NOT_BUILT, GOOD], 125),
        ([CRASHES, GOOD], 1),
        ([NOT_BUILT, CRASHES], 1),
        ([NOT_BUILT, CHECK_FAILS], 1),
        ([GOOD, STOPPED, GOOD], 130),
    ],
)
def test_the_exit_status_says_the_worst_result(uffdlab, kernels, status):
    assert uffdlab("run", "minor_wp", *kernels).exit_code == status


def test_a_kernel_that_fails_leaves_the_results_before_and_after_it(uffdlab):
    result = uffdlab("run", "minor_wp", CHECK_FAILS, NOT_BUILT, CRASHES, GOOD)
    shown = [line for line in result.stdout.splitlines() if not line.startswith(" ")]
    assert [line.partition(" ")[0] for line in shown] == [CHECK_FAILS, GOOD]
    assert result.stderr == f"{NOT_BUILT}: make failed\n{CRASHES}: the machine is gone\n"


def test_each_result_is_printed_before_the_next_kernel_starts(uffdlab, monkeypatch, tmp_path):
    written = []
    file = tmp_path / "results"

    def experiment(lab):
        written.append(file.read_text())
        return Result("minor_wp", lab.kernel, "6.1.0", "pagemap", [], [], {}, None)

    monkeypatch.setitem(scenarios.SCENARIOS, "minor_wp", experiment)
    uffdlab("run", "minor_wp", GOOD, CHECK_FAILS, "--output", str(file))
    assert [GOOD in text for text in written] == [False, True]


@pytest.mark.parametrize("command", [["run", "minor_wp"], ["capabilities"]], ids=" ".join)
def test_ctrl_c_keeps_what_is_done_and_says_so(uffdlab, command):
    result = uffdlab(*command, GOOD, STOPPED, CHECK_FAILS)
    assert result.exit_code == 130
    assert GOOD in result.stdout
    assert result.stderr == f"\nuffdlab: stopped\nDone: {GOOD}. Not done: {STOPPED}, {CHECK_FAILS}.\n"


@pytest.mark.parametrize("command", [["run", "minor_wp"], ["capabilities"], ["witness-audit"]], ids=" ".join)
@pytest.mark.parametrize("wrong", ["6.1-bse", "./no-such-file"])
def test_a_wrong_name_is_found_before_the_first_kernel_starts(uffdlab, command, wrong):
    result = uffdlab(*command, GOOD, wrong)
    assert (result.exit_code, result.stdout) == (2, "")
    assert wrong.removeprefix("./") in result.stderr


def test_json_has_an_element_for_each_kernel_with_a_result_or_an_error(uffdlab):
    result = uffdlab("run", "minor_wp", GOOD, CHECK_FAILS, CRASHES, NOT_BUILT, "--json")
    elements = json.loads(result.stdout)
    assert [(each["kernel"], each["ok"], each.get("exit_status")) for each in elements] == [
        (GOOD, True, None),
        (CHECK_FAILS, False, None),
        (CRASHES, False, 1),
        (NOT_BUILT, False, 125),
    ]
    assert all(each["scenario"] == "minor_wp" for each in elements)
    assert elements[1]["checks"] == [{"name": "CONTINUE|WP", "expected": "ok", "observed": "EINVAL", "ok": False}]
    assert elements[3]["error"] == f"{NOT_BUILT}: make failed"
    assert result.exit_code == 1


def test_json_is_one_element_in_an_array_for_one_kernel(uffdlab):
    assert [each["kernel"] for each in json.loads(uffdlab("run", "minor_wp", GOOD, "--json").stdout)] == [GOOD]


def test_json_is_complete_after_ctrl_c(uffdlab):
    result = uffdlab("run", "minor_wp", GOOD, STOPPED, CHECK_FAILS, "--json")
    assert result.exit_code == 130
    assert [each["kernel"] for each in json.loads(result.stdout)] == [GOOD]


def test_a_wrong_setting_is_bad_usage_and_prints_no_json(uffdlab):
    result = uffdlab("run", "minor_wp", NOT_READ, "--json")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "that setting is wrong" in result.stderr


def test_capabilities_as_json(uffdlab):
    result = uffdlab("capabilities", GOOD, NOT_BUILT, "--json")
    row = {"group": "mode", "name": "UFFDIO_CONTINUE WP", "since": "6.4", "available": False, "errno": 22}
    failed = {"kernel": NOT_BUILT, "ok": False, "error": f"{NOT_BUILT}: make failed", "exit_status": 125}
    assert json.loads(result.stdout) == [{"kernel": GOOD, "ok": True, "capabilities": [row]}, failed]
    assert result.exit_code == 125


def test_the_table_of_capabilities_leaves_out_a_kernel_that_failed(uffdlab):
    result = uffdlab("capabilities", NOT_BUILT, GOOD)
    assert result.stdout.splitlines()[0].split() == ["name", "since", GOOD]
    assert result.stderr == f"{NOT_BUILT}: make failed\n"


@pytest.mark.parametrize("json_option", [[], ["--json"]], ids=["table", "json"])
def test_an_audit_shows_one_table_also_if_the_first_kernel_failed(uffdlab, monkeypatch, json_option):
    from uffdlab.scenarios.witness_audit import Audit

    monkeypatch.setattr(
        "uffdlab.scenarios.witness_audit.examine",
        lambda lab: [Audit(lab.kernel, "shmem", "wp", 8, ("pagemap",), 16, (), "", 3, 3)],
    )
    result = uffdlab("witness-audit", NOT_BUILT, GOOD, CHECK_FAILS, *json_option)
    assert result.exit_code == 125
    if json_option:
        kernels = json.loads(result.stdout)
        assert [each["ok"] for each in kernels] == [False, True, True]
        assert kernels[1]["cases"][0]["falsified"] == 3
        return
    heads = [line.split("|")[1].strip() for line in result.stdout.splitlines()]
    assert heads == ["kernel", "---", GOOD, CHECK_FAILS]


@pytest.mark.parametrize("output", ["none/x", "."])
def test_an_output_that_cannot_be_written_is_found_before_the_first_kernel_starts(uffdlab, tmp_path, output):
    result = uffdlab("run", "minor_wp", GOOD, "--output", str(tmp_path / output))
    assert (result.exit_code, result.stdout) == (2, "")
    assert "--output" in result.stderr


def test_results_go_to_the_output_file(uffdlab, tmp_path):
    result = uffdlab("run", "minor_wp", GOOD, "--json", "--output", str(tmp_path / "x"))
    assert (result.exit_code, result.stdout) == (0, "")
    assert json.loads((tmp_path / "x").read_text())[0]["kernel"] == GOOD
