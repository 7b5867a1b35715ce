"""The PTE reader's own test program: entries of every kind against pagemap, each error, mappings that come and go."""

import subprocess

import pytest

from uffdlab import Lab
from uffdlab.kernels import catalogue
from uffdlab.uapi.protocol import ReserveHugepages, TurnSwapOn

pytestmark = [pytest.mark.vm, pytest.mark.timeout(300)]

FOLDER = catalogue.default_file().parent / "6.1" / "pte-reader"


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    made = tmp_path_factory.mktemp("pte_reader") / "pte_reader_test"
    flags = ["-O2", "-Wall", "-Wextra", "-Werror", "-pthread", f"-I{FOLDER / 'include' / 'uapi'}"]
    subprocess.run(["cc", *flags, FOLDER / "pte_reader_test.c", "-o", made], check=True)
    return made


@pytest.mark.parametrize(
    ("kernel", "more"),
    [
        ("6.1-series", {}),
        *(
            pytest.param(f"debian/{name}", {"pte_reader": True}, marks=pytest.mark.long)
            for name in ("bookworm", "trixie", "trixie-backports")
        ),
    ],
)
def test_it_tells_the_truth(program, kernel, more):
    with Lab(kernel, memory_mib=5120, **more) as lab:
        for size, count in ((2 << 20, 2), (1 << 30, 1)):
            lab.ask(ReserveHugepages(size, count))
        lab.ask(TurnSwapOn())
        done = lab.exec([program.name, "3"], push=[program], deadline=200)
        assert done.status == 0, done.text
        skipped = [line.partition(" - ")[2] for line in done.text.splitlines() if "# SKIP" in line]
        assert skipped == []
