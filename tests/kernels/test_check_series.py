"""kernel-patch/check-series compares cells with expectations, and reports whether a mutation is caught."""

import re
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "kernel-patch" / "check-series"


def run(series, commands):
    """Run `commands` with the script's functions that judge; return the lines that they print."""
    names = "cell|bad|expect|unharmed"
    found = re.findall(rf"^(?:{names})\(\) \{{(?:.* \}}.*|.*\n(?:\t.*\n)+\}})$", SCRIPT.read_text(), re.MULTILINE)
    assert len(found) == 4
    script = ["set -euo pipefail", *found, f"series={series} row=() failed= column=0", *commands]
    return subprocess.run(
        ["bash", "-c", "\n".join(script)], capture_output=True, text=True, check=True
    ).stdout.splitlines()


PRINT = 'printf "%s\\n" "${row[@]}" "failed=$failed"'


@pytest.mark.parametrize(
    ("values", "cells", "failed"),
    [
        (("64 of 768", "0 of 252", "refuses"), ["64 of 768", "0 of 252", "refuses"], ""),
        (("64 of 768", "3 of 252", "refuses"), ["64 of 768", "**3 of 252, expected 0 of 252**", "refuses"], 1),
        (("64 of 768", "0 of 252", "goes on"), ["64 of 768", "0 of 252", "**goes on, expected refuses**"], 1),
    ],
)
def test_each_cell_is_compared_with_its_column(tmp_path, values, cells, failed):
    (tmp_path / "expected").write_text("# a comment\nbase: 9, 9, 9\n1: 64 of 768, 0 of 252, refuses\n")
    assert run(tmp_path, [*(f'expect 1 "{each}"' for each in values), PRINT]) == [*cells, f"failed={failed}"]


def test_a_row_without_an_expectation_is_shown_as_it_is(tmp_path):
    assert run(tmp_path, ['expect 1 "3 of 4"', PRINT]) == ["3 of 4", "failed="]
    (tmp_path / "expected").write_text("base: 9\n")
    assert run(tmp_path, ['expect 1 "3 of 4"', PRINT]) == ["3 of 4", "failed="]


@pytest.mark.parametrize(
    ("cells", "caught"),
    [
        ("'0 of 768' '0 of 252' refuses 0", "no"),
        ("'0 of 768' 'does not end; 0 of 200' refuses 0", "yes"),
        ("'does not end; 0 of 96' '0 of 252' refuses 0", "yes"),
        ("'0 of 768' '3 of 252' refuses 0", "yes"),
        ("'0 of 768' '0 of 252' 'goes on' 0", "yes"),
        ("'0 of 768' '0 of 252' refuses 1", "yes"),
    ],
)
def test_a_mutation_is_caught_by_any_cell(tmp_path, cells, caught):
    assert run(tmp_path, [f"if unharmed {cells}; then echo no; else echo yes; fi"]) == [caught]
