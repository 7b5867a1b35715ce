"""uffdlab/bulk reads hostile page tables, which change during the read, under sanitizers."""

import subprocess

import pytest

from .compiling import ROOT, run

HERE = ROOT / "tests" / "native"
BULK = ROOT / "uffdlab" / "bulk"
FLAGS = ["-g", "-O1", "-std=gnu11", "-Wall", "-Wextra", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
MUTATIONS = {
    "a frame too many": ("if (frame < ram->below)", "if (frame <= ram->below)"),
    "a page too many": ("(unsigned int)(last - first + 1)", "(unsigned int)(last - first + 2)"),
    "a level too few": ("(entry & FRAME) >> 12, level - 1,", "(entry & FRAME) >> 12, level - 1 - (level == 3),"),
    "a huge page is a table": ("(level == 2 || level == 3) && entry & PSE", "level == 2 && entry & PSE"),
}


def build(folder, *flags, walk=BULK / "walk.c"):
    """Compile fuzz_walk.c and return the program; with CHANGE_AT_READS it includes walk.c itself."""
    program = folder / "fuzz_walk"
    sources = [HERE / "fuzz_walk.c", BULK / "decode.c", BULK / "sum.c"]
    if "-DCHANGE_AT_READS" not in flags:
        sources.append(walk)
    run("gcc", *FLAGS, *flags, f"-I{BULK}", "-pthread", *sources, "-o", program)
    return program


def run_fuzzer(program, rounds, seed):
    """Run the program; return its counts by name."""
    done = subprocess.run([program, str(rounds), str(seed)], capture_output=True, text=True, check=False, timeout=3000)
    assert done.returncode == 0, done.stderr
    fields = done.stdout.split()
    return dict(zip(fields[::2], map(int, fields[1::2]), strict=True))


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("flags", [[], ["-DCHANGE_AT_READS"]], ids=["by a thread", "at reads"])
@pytest.mark.parametrize("rounds", [pytest.param(40, id="few"), pytest.param(3000, id="many", marks=pytest.mark.long)])
def test_no_content_of_page_tables_causes_a_memory_error(tmp_path, flags, rounds):
    counted = run_fuzzer(build(tmp_path, *flags), rounds, seed=1)
    assert all(counted[name] > 0 for name in ("done", "outside", "pages", "compared", "changes"))
    assert counted["done"] + counted["changed"] + counted["outside"] == rounds * 60
    assert counted["changed"] > 0 or rounds < 100


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_an_error_inserted_into_the_walk_is_reported(tmp_path, mutation):
    text = (BULK / "walk.c").read_text()
    right, wrong = MUTATIONS[mutation]
    assert text.count(right) == 1
    mutated = tmp_path / "walk.c"
    mutated.write_text(text.replace(right, wrong))
    with pytest.raises(AssertionError, match=r"fuzz_walk:|ERROR: AddressSanitizer|runtime error"):
        run_fuzzer(build(tmp_path, walk=mutated), 40, seed=1)
