"""Files and folders that cannot be read or written: an error in words, for every command."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from uffdlab.cli.main import main
from uffdlab.data_folders import data_folder

from ..other_user import NOBODY, as_another_user, open_folder

NOTEBOOK = str(data_folder("notebooks") / "minor_wp.ipynb")
ROOT = Path(__file__).resolve().parents[2]
# Those that read the catalogue of kernels.
READ_KERNELS = [
    "kernel list", "kernel list --json", "kernel build 6.1-series", "kernel build --all", "kernel path 6.1-series",
    "kernel log 6.1-series", "kernel remove mine", "kernel size 6.1-base 6.1-series", "run minor_wp 6.1-series",
    "kernel add new --on 6.1-base --config /dev/null", "capabilities 6.1-series", "exec 6.1-series true",
    "selftest 6.1-series", "fuzz 6.1-series", "witness-audit 6.1-series", "demo --out {folder}/out",
]  # fmt: skip


def uffdlab(command, folder):
    return CliRunner().invoke(main, command.format(folder=folder).split(), prog_name="uffdlab")


@pytest.mark.parametrize("command", READ_KERNELS)
def test_a_bad_catalogue_is_named(monkeypatch, tmp_path, command):
    (tmp_path / "kernels.toml").write_text("[")
    monkeypatch.setenv("UFFDLAB_KERNELS", str(tmp_path))
    result = uffdlab(command, tmp_path)
    assert result.exit_code == 125, result.output
    assert f"{tmp_path}/kernels.toml is no TOML" in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"\xff", "is no TOML"),
        (b"kernel = 3\n", "kernel is not a table of tables"),
        (b"[kernel.x]\nabout = 1\n", "about is not a string"),
        (None, "Is a directory"),
    ],
)
def test_what_is_wrong_in_a_catalogue_is_said(monkeypatch, tmp_path, text, reason):
    file = tmp_path / "kernels.toml"
    file.mkdir() if text is None else file.write_bytes(text)
    monkeypatch.setenv("UFFDLAB_KERNELS", str(tmp_path))
    result = uffdlab("kernel list", tmp_path)
    assert (result.exit_code, reason in result.stderr) == (125, True), result.output


@pytest.mark.parametrize(
    ("command", "status"),
    [
        ("demo --out {folder}/x", 2),
        ("run minor_wp 6.1-series --output {folder}/x", 2),
        ("selftest 6.1-series --output {folder}/x", 2),
        (f"notebook {NOTEBOOK} {{folder}}/x.html", 2),
        (f"export {NOTEBOOK} {{folder}}/x.html", 2),
        ("lab {folder}/x", 125),
    ],
)
def test_a_folder_of_another_user_is_found_before_anything_starts(command, status):
    def run(folder):
        os.chdir(folder)
        result = uffdlab(command, folder)
        return result.exit_code, result.output, result.exception.__class__.__name__

    with open_folder() as folder:
        found = as_another_user(run, folder)
        assert found[0] == status, found
        assert found[2] == "SystemExit"
        assert "Permission denied" in found[1]
        assert list(folder.iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("setpriv"), reason="only root can become another user")
@pytest.mark.parametrize("theirs", ["build", ".venv", "."])
def test_make_in_a_checkout_of_root_says_what_to_do(theirs):
    with open_folder() as folder:
        (folder / "vm").mkdir()
        shutil.copy(ROOT / "vm" / "make-venv", folder / "vm")
        os.chown(folder, NOBODY, NOBODY) if theirs != "." else None
        (folder / theirs).mkdir(exist_ok=True)
        done = subprocess.run(
            ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", folder / "vm" / "make-venv"],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
    assert done.returncode == 1
    assert "you cannot write to" in done.stderr
    assert "sudo chown" in done.stderr
    assert len(done.stderr.splitlines()) == 1


# Each prints something without a kernel.
PRINT = ["--help", "--version", "kernel list", "kernel list --json", "doctor", "doctor --json", "cache", "cache --json",
         "run --help", "export {notebook} {folder}/x.html"]  # fmt: skip


@pytest.mark.parametrize("command", PRINT)
def test_a_full_disk_for_the_output_is_one_line(tmp_path, command):
    words = command.format(notebook=NOTEBOOK, folder=tmp_path).split()
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "uffdlab", *words], stdout=full, stderr=subprocess.PIPE, text=True, check=False,
            timeout=120,
        )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr == "uffdlab: the output cannot be written: No space left on device\n"
