"""The PTE reader's own test program: entries of every kind against pagemap, each error, mappings that come and go."""

import subprocess
from pathlib import Path

import pytest

from uffdlab import Lab
from uffdlab.kernels import catalogue
from uffdlab.uapi.protocol.agent import ReserveHugepages, TurnSwapOn

pytestmark = [pytest.mark.vm, pytest.mark.timeout(300)]

FOLDER = catalogue.default_file().parent / "6.1" / "pte-reader"


def compiled(source, folder):
    made = folder / source.stem
    flags = ["-O2", "-Wall", "-Wextra", "-Werror", "-pthread", "-static", f"-I{FOLDER / 'include' / 'uapi'}"]
    subprocess.run(["cc", *flags, source, "-o", made], check=True)
    return made


KERNELS = pytest.mark.parametrize(
    ("kernel", "more"),
    [
        ("6.1-series", {}),
        *(
            pytest.param(f"debian/{name}", {"pte_reader": True}, marks=pytest.mark.long)
            for name in ("bookworm", "trixie", "trixie-backports")
        ),
    ],
)


@KERNELS
def test_it_tells_the_truth(tmp_path, kernel, more):
    program = compiled(FOLDER / "pte_reader_test.c", tmp_path)
    with Lab(kernel, memory_mib=5120, **more) as lab:
        for size, count in ((2 << 20, 2), (1 << 30, 1)):
            lab.ask(ReserveHugepages(size, count))
        lab.ask(TurnSwapOn())
        done = lab.exec([program.name, "3"], push=[program], deadline=200)
        assert done.status == 0, done.text
        skipped = [line.partition(" - ")[2] for line in done.text.splitlines() if "# SKIP" in line]
        assert skipped == []


@KERNELS
def test_what_changes_while_it_copies_out_is_told_of_its_own_time(tmp_path, kernel, more):
    program = compiled(Path(__file__).with_name("pte_reader_held.c"), tmp_path)
    with Lab(kernel, hugepages=4, **more) as lab:
        done = lab.exec([program.name], push=[program], deadline=250)
    assert done.status == 0, done.text
    assert done.text.count("\nok ") + done.text.startswith("ok ") == 15
