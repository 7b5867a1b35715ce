"""Every behaviour test fails when what it checks is not so: it is run once more with the client broken on purpose."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
sys.path.insert(0, str(HERE.parent))
from broken import BREAKS  # noqa: E402
from test_uffd_unit_tests import FILES, rows  # noqa: E402

pytestmark = [pytest.mark.vm, pytest.mark.long]

KERNELS = ("6.1-series", "debian/trixie", "debian/trixie-backports")


@pytest.fixture(scope="module")
def ends(tmp_path_factory):
    """How each test ended on each kernel that could run it: (when, outcome, why)."""
    found = {}
    for number, kernel in enumerate(KERNELS):
        report = tmp_path_factory.mktemp("broken") / f"{number}.json"
        subprocess.run(
            [sys.executable, "-m", "pytest", "-p", "broken", "-q", "-p", "no:cacheprovider", "-p", "no:xdist",
             *(HERE / f"{name}.py" for name in FILES)],
            env={**os.environ, "PYTHONPATH": str(HERE), "UFFDLAB_BROKEN_KERNEL": kernel,
                 "UFFDLAB_BROKEN_REPORT": str(report)},
            cwd=HERE.parent.parent, timeout=900, check=False, capture_output=True,
        )  # fmt: skip
        for name, end in json.loads(report.read_text()).items():
            found.setdefault(name, []).append((kernel, *end))
    return found


def test_every_row_of_the_table_has_something_to_break():
    assert {here for _, _, here, _ in rows()} <= set(BREAKS)


@pytest.mark.timeout(2400)
@pytest.mark.parametrize("name", BREAKS)
def test_every_behaviour_test_fails_with_a_broken_client(ends, name):
    ran = [end for end in ends.get(name, []) if end[2] != "skipped"]
    assert ran, f"no kernel could run it: {ends.get(name)}"
    for kernel, when, outcome, why in ran:
        assert (when, outcome) == ("call", "failed"), (kernel, why)
