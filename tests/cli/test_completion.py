"""What a shell completes, asked for as the shell asks: with click's environment variables."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

from uffdlab import scenarios
from uffdlab.cli import parameters
from uffdlab.fuzz.rules import MEMORIES
from uffdlab.kernels import catalogue

UFFDLAB = [sys.executable, "-m", "uffdlab"]


def completed(words, shell="bash", **environment):
    """Return the completions of the last of some words."""
    asked = {"_UFFDLAB_COMPLETE": f"{shell}_complete", "COMP_WORDS": " ".join(words), "COMP_CWORD": str(len(words) - 1)}
    done = subprocess.run(
        UFFDLAB, env=os.environ | asked | environment, capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stderr == ""
    return done.stdout.splitlines()


def names(words, **environment):
    """Return the completions that are names."""
    lines = completed(["uffdlab", *words], **environment)
    return [line.removeprefix("plain,") for line in lines if line.startswith("plain,")]


@pytest.mark.parametrize(
    "words", [["run", "minor_wp"], ["kernel", "build"], ["kernel", "log"], ["kernel", "am", "--on"], ["exec"],
              ["capabilities"], ["selftest"], ["fuzz"], ["kernel", "size"], ["vagrant", "up"]],
    ids=" ".join,
)  # fmt: skip
def test_every_kernel_of_the_catalogue(words):
    assert names([*words, ""]) == [entry.name for entry in catalogue.load()]
    assert names([*words, "debian/trixie-"]) == ["debian/trixie-backports"]


def test_the_users_own_kernels(tmp_path):
    (tmp_path / "kernels.toml").write_text('[kernel.mine]\nabout = "my own"\non = "6.1-series"\n')
    assert names(["run", "minor_wp", "m"], UFFDLAB_KERNELS=str(tmp_path)) == ["mine"]


def test_scenarios():
    assert tuple(scenarios.SCENARIOS) == parameters.SCENARIOS
    assert names(["run", ""]) == list(parameters.SCENARIOS)


def test_kinds_of_memory():
    assert names(["fuzz", "--memory", ""]) == list(MEMORIES)


def test_machines():
    assert names(["fuzz", "--machine", ""]) == ["qemu", "local", "ssh:", "vagrant"]


def test_commands_and_options():
    assert "kernel" in names([""])
    assert names(["kernel", "li"]) == ["list"]
    assert "--json" in names(["run", "--"])


def test_a_path_is_the_shells_matter():
    assert completed(["uffdlab", "run", "minor_wp", "./vm"]) == ["file,./vm"]
    assert completed(["uffdlab", "kernel", "log", "./vm"]) == [""]


def test_a_bad_catalogue_completes_no_kernel(tmp_path):
    (tmp_path / "kernels.toml").write_text("[")
    assert names(["kernel", "log", ""], UFFDLAB_KERNELS=str(tmp_path)) == []


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_show_what_a_kernel_is(shell):
    # fish passes what is typed of the last word in place of its number.
    shown = completed(["uffdlab", "run", "minor_wp", ""], shell, **({"COMP_CWORD": ""} if shell == "fish" else {}))
    assert any("6.1-series" in line for line in shown)
    assert any("patch series" in line for line in shown)


@pytest.mark.parametrize("words", [[""], ["run", "minor_wp", ""], ["exec", ""], ["kernel", "remove", ""]], ids=" ".join)
def test_a_shell_does_not_wait_for_imports(words):
    code = (
        "import sys\nfrom uffdlab.cli.main import main\n"
        "try:\n main(prog_name='uffdlab')\n"
        "finally:\n print(sorted(sys.modules), file=sys.stderr)\n"
    )
    asked = {
        "_UFFDLAB_COMPLETE": "bash_complete",
        "COMP_WORDS": " ".join(["uffdlab", *words]),
        "COMP_CWORD": str(len(words)),
    }
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | asked, capture_output=True, text=True, check=True, timeout=60
    )
    loaded = set(eval(done.stderr))
    assert done.stdout
    assert not loaded & {"numpy", "IPython", "matplotlib", "asyncio", "socket", "uffdlab.lab", "uffdlab.kernels.supply"}


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_of_each_shell_is_printed(shell):
    environment = os.environ | {"_UFFDLAB_COMPLETE": f"{shell}_source"}
    done = subprocess.run(UFFDLAB, env=environment, capture_output=True, text=True, check=True, timeout=60)
    assert "_uffdlab_completion" in done.stdout
    assert "python" not in done.stdout
    if shutil.which(shell):
        subprocess.run([shell, "-n"], input=done.stdout, text=True, check=True, timeout=60)


@pytest.fixture
def on_path(tmp_path):
    """Return an environment in whose PATH is the command."""
    command = tmp_path / "bin" / "uffdlab"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m uffdlab "$@"\n')
    command.chmod(0o755)
    return os.environ | {"PATH": f"{command.parent}:{os.environ['PATH']}", "HOME": str(tmp_path)}


# Each does what the shell's line editor does when TAB is pressed after "uffdlab kernel build debian/trixie-".
_PRESS_TAB = {
    "bash": 'COMP_WORDS=(uffdlab kernel build debian/trixie-); COMP_CWORD=3; _uffdlab_completion uffdlab\n'
            'echo "${COMPREPLY[@]}"',
    "fish": 'complete --do-complete "uffdlab kernel build debian/trixie-"',
}  # fmt: skip


@pytest.mark.parametrize("shell", _PRESS_TAB)
def test_the_shell_itself_completes_a_kernel(on_path, shell):
    if not shutil.which(shell):
        pytest.skip(f"{shell} is not installed")
    load = {
        "bash": 'eval "$(_UFFDLAB_COMPLETE=bash_source uffdlab)"',
        "fish": "_UFFDLAB_COMPLETE=fish_source uffdlab | source",
    }[shell]
    done = subprocess.run(
        [shell],
        input=f"{load}\n{_PRESS_TAB[shell]}\n",
        env=on_path,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout.split()[:1] == ["debian/trixie-backports"], done.stderr
