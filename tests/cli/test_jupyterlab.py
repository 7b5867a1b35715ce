"""`uffdlab lab`: which folder it copies to, and what it passes to JupyterLab."""

import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from uffdlab.cli import jupyterlab
from uffdlab.cli.main import main
from uffdlab.data_folders import data_folder


@pytest.fixture
def started(monkeypatch, tmp_path):
    """Return the commands that would replace this process."""
    monkeypatch.chdir(tmp_path)
    commands = []
    monkeypatch.setattr(jupyterlab.os, "execv", lambda _, command: commands.append(command))
    return commands


@pytest.mark.parametrize(
    ("arguments", "folder", "options"),
    [
        ([], "uffdlab-notebooks", []),
        (["mine"], "mine", []),
        (["mine", "--", "--no-browser", "--port=0"], "mine", ["--no-browser", "--port=0"]),
        (["--", "--no-browser"], "uffdlab-notebooks", ["--no-browser"]),
        (["--", "other"], "uffdlab-notebooks", ["other"]),
    ],
)
def test_what_follows_the_dashes_is_for_jupyterlab(started, arguments, folder, options):
    result = CliRunner().invoke(main, ["lab", *arguments], prog_name="uffdlab")
    assert result.exit_code == 0, result.output
    assert [path.name for path in Path().iterdir()] == [folder]
    (command,) = started
    assert f"--ServerApp.root_dir={Path(folder).resolve()}" in command
    assert command[len(command) - len(options) :] == options
    assert ("--allow-root" in command) is (os.geteuid() == 0)


def test_an_option_without_the_dashes_is_refused_and_copies_nothing(started):
    result = CliRunner().invoke(main, ["lab", "--no-browser"], prog_name="uffdlab")
    assert (result.exit_code, started, list(Path().iterdir())) == (2, [], [])
    assert "No such option" in result.output


def test_every_notebook_is_copied_with_the_version_of_this_python(started):
    CliRunner().invoke(main, ["lab", "mine"], prog_name="uffdlab")
    names = sorted(path.name for path in data_folder("notebooks").glob("*.ipynb"))
    assert sorted(path.name for path in Path("mine").iterdir()) == names
    copy = json.loads(Path("mine", names[0]).read_text())
    original = json.loads((data_folder("notebooks") / names[0]).read_text())
    assert copy["cells"] == original["cells"]
    assert copy["metadata"]["language_info"]["version"] == ".".join(map(str, jupyterlab.sys.version_info[:3]))
