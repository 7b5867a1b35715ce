"""`uffdlab kernel size` on real kernels: the bytes that the series saves, and the time of UFFDIO_CONTINUE."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from uffdlab.cli.main import main

pytestmark = [pytest.mark.vm, pytest.mark.long, pytest.mark.timeout(3600)]


def test_kernel_size_compares_code_size_and_time():
    result = CliRunner().invoke(main, ["kernel", "size", "6.1-base", "6.1-series", "--json", "--time"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout[result.stdout.index("{") :])
    objects = {row["name"]: row for row in found["objects"]}
    assert objects["mm/userfaultfd.o"]["difference"] < -2000
    assert {"mm/shmem.o", "fs/userfaultfd.o"} <= objects.keys()
    functions = {row["name"]: row for row in found["functions"]}
    assert functions["mm/userfaultfd.o __mcopy_atomic"]["a"] is None  # inlined into three callers
    assert sum(row["difference"] for row in found["objects"]) == found["total"]["difference"]
    assert [len(timing["ns_a_page"]) for timing in found["times"]] == [2, 2]
    assert all(time > 0 for timing in found["times"] for time in timing["ns_a_page"])
