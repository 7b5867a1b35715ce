"""kernel-patch/check-series: a cell is compared with its own column of SERIES/expected."""

import re
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "kernel-patch" / "check-series"


def run(series, commands):
    """Run `commands` with the script's functions that make a cell; return the printed lines."""
    text = SCRIPT.read_text()
    found = [
        re.search(rf"^{name}\(\) \{{.*?(?:\}}|^\}})$", text, re.MULTILINE | re.DOTALL)
        for name in ("cell", "bad", "expect")
    ]
    script = "\n".join(
        ["set -euo pipefail", *(match[0] for match in found), f"series={series} row=() failed= column=0", *commands]
    )
    script += '\nprintf "%s\\n" "${row[@]}" "failed=$failed"\n'
    return subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True).stdout.splitlines()


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
    assert run(tmp_path, [f'expect 1 "{each}"' for each in values]) == [*cells, f"failed={failed}"]


def test_a_row_without_an_expectation_is_shown_as_it_is(tmp_path):
    assert run(tmp_path, ['expect 1 "3 of 4"']) == ["3 of 4", "failed="]
    (tmp_path / "expected").write_text("base: 9\n")
    assert run(tmp_path, ['expect 1 "3 of 4"']) == ["3 of 4", "failed="]
