"""An error of uffdlab that ends a script is printed in one line; other errors are printed as usual."""

import os
import subprocess
import sys

import pytest

WRONG = 'import uffdlab\n\nuffdlab.Lab("6.1-seris")\n'


def run(path, text, *flags, **environment):
    path.write_text(text)
    command = [sys.executable, *flags, str(path)]
    environment = {**os.environ, **environment}
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, env=environment)
    assert done.returncode == 1
    return done.stderr


@pytest.mark.parametrize("flags", [(), ("-O",), ("-OO",)], ids=str)
def test_a_script_prints_an_error_in_one_line(tmp_path, flags):
    (line,) = run(tmp_path / "script.py", WRONG, *flags).splitlines()
    assert line.startswith("script.py, line 3: UnknownKernel: no kernel is called '6.1-seris'")


def test_the_whole_traceback_can_be_shown(tmp_path):
    assert "catalogue.py" in run(tmp_path / "script.py", WRONG, UFFDLAB_TRACEBACK="full")
    assert "catalogue.py" in run(tmp_path / "script.py", WRONG, "-X", "dev")


def test_the_line_is_the_users_own_also_if_the_method_was_made_by_python(tmp_path):
    # Difference is a dataclass: Python writes its __init__, of a file "<string>".
    text = """
import numpy as np
from uffdlab.observations.snapshot import Snapshot

def of(pages):
    return Snapshot(region="r", start=0, page_size=4096, witness="pagemap",
                    entries=np.zeros(pages, np.uint64), levels=np.ones(pages, np.uint8))

of(2) - of(3)
"""
    assert run(tmp_path / "script.py", text).startswith("script.py, line 9: UsageError: these two snapshots")


def test_other_errors_have_their_traceback(tmp_path):
    output = run(tmp_path / "script.py", "import uffdlab.errors\n\n1 / 0\n")
    assert output.startswith("Traceback (most recent call last):\n")


def test_a_hook_that_the_script_set_is_not_replaced(tmp_path):
    text = f"import sys\nsys.excepthook = lambda *_: print('mine', file=sys.stderr)\n{WRONG}"
    assert run(tmp_path / "script.py", text) == "mine\n"


def test_notes_are_printed_with_the_message(tmp_path):
    text = "from uffdlab.errors import UsageError\nerror = UsageError('why')\nerror.add_note('and how')\nraise error\n"
    assert run(tmp_path / "script.py", text) == "script.py, line 4: UsageError: why\nand how\n"
