"""The example of the README runs as written."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.vm

README = Path(__file__).resolve().parent.parent.parent / "README.md"


def test_the_example_of_the_readme_runs(tmp_path):
    (example,) = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    example += "print(after.has(uffdlab.State.UFFD_WP).sum(), after.has(uffdlab.State.WRITABLE).sum(), touch.state)\n"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", example],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["32", "16", "done"]
