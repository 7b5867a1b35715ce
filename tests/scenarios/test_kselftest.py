"""The output of the kernel's selftests is parsed in each of its formats, and printed as KTAP."""

from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from uffdlab.cli.main import main
from uffdlab.errors import KernelError
from uffdlab.kernels import kselftest
from uffdlab.kernels.kselftest import Selftests
from uffdlab.scenarios.kselftest import KselftestCase, Run, ktap, parse, plan

OF_6_1 = """\
nr_pages: 1024, nr_pages_per_cpu: 1024
bounces: 0, mode: read, userfaults: 3 missing (3+)
testing uffd-wp with pagemap (pgsize=4096): done
testing fill modes:
FAIL: UFFDIO_CONTINUE mode DONTWAKE|WP, shared mapping registered for MINOR|WP: the entry lacks the uffd-wp bit
1 of 48 combinations failed.
"""
OF_6_12 = """\
Testing UFFDIO_API (with syscall)... done
Testing minor-wp on shmem... skipped [reason: feature missing]
Testing wp-fork on hugetlb... failed [reason: bit is gone]
Userfaults unit tests: pass=1, skip=1, fail=1 (total=3)
"""
OF_7_3 = """\
TAP version 13
1..5
ok 1 zeropage on anon
# failed reason: [only 0 of 8192 pages]
not ok 2 minor-wp on shmem
ok 3 move on anon # SKIP feature missing
not ok 4 known # XFAIL
ok 5 # SKIP wp-fork-pin on anon (CONFIG_GUP_TEST missing)
# Totals: pass:1 fail:1 xfail:1 xpass:0 skip:1 error:0
"""


def test_the_output_of_6_1_is_parsed():
    cases, notes = parse(OF_6_1, good=False)
    assert [(case.name, case.verdict) for case in cases] == [
        ("uffd-wp with pagemap (pgsize=4096)", "pass"),
        ("fill modes", "fail"),
    ]
    assert "DONTWAKE|WP" in cases[1].notes[0]
    assert notes[0].startswith("nr_pages")


@pytest.mark.parametrize(("good", "verdict"), [(True, "pass"), (False, "fail")])
def test_a_step_of_6_1_without_done_has_the_verdict_of_the_whole_run(good, verdict):
    cases, _ = parse("testing events (fork, remap, remove): userfaults: 5 missing (5+)\n", good=good)
    assert cases == [KselftestCase("events (fork, remap, remove)", verdict)]


def test_the_output_of_6_12_is_parsed():
    cases, _ = parse(OF_6_12, good=False)
    assert cases == [
        KselftestCase("UFFDIO_API (with syscall)", "pass"),
        KselftestCase("minor-wp on shmem", "skip", ["feature missing"]),
        KselftestCase("wp-fork on hugetlb", "fail", ["bit is gone"]),
    ]


def test_the_ktap_of_7_3_is_parsed():
    cases, notes = parse(OF_7_3, good=False)
    assert cases == [
        KselftestCase("zeropage on anon", "pass"),
        KselftestCase("minor-wp on shmem", "fail", ["failed reason: [only 0 of 8192 pages]"]),
        KselftestCase("move on anon", "skip", ["feature missing"]),
        KselftestCase("known", "pass"),
        KselftestCase("wp-fork-pin on anon", "skip", ["CONFIG_GUP_TEST missing"]),
    ]
    assert notes == []


def report(*runs):
    lab = SimpleNamespace(kernel="6.1-x", release="6.1.0-x")
    tests = Selftests({}, "linux-source-6.1 6.1.192-2")
    lines = []
    good = ktap(lab, tests, [run.command for run in runs], iter(runs), lines.append)
    return good, lines


def test_passed_tests_are_printed_as_ktap():
    good, lines = report(
        Run(("uffd-unit-tests",), "pass", [KselftestCase("a #1", "pass"), KselftestCase("b", "skip", ["no"])], ["x"])
    )
    assert good
    assert lines == [
        "KTAP version 1",
        "# userfaultfd selftests of linux-source-6.1 6.1.192-2",
        "# on 6.1-x, Linux 6.1.0-x",
        "1..1",
        "  KTAP version 1",
        "  1..2",
        "  ok 1 a  1",
        "  ok 2 b # SKIP no",
        "# x",
        "ok 1 uffd-unit-tests",
        "# Totals: pass:1 fail:0 xfail:0 xpass:0 skip:1 error:0",
    ]


def test_failed_tests_are_printed_as_ktap():
    cases, notes = parse(OF_6_1, good=False)
    good, lines = report(
        Run(("userfaultfd", "shmem"), "fail", cases, notes),
        Run(("userfaultfd", "anon"), "fail", [], ["exit status 139"]),
    )
    assert not good
    assert "not ok 1 userfaultfd shmem" in lines
    assert any(line.startswith("  # FAIL: UFFDIO_CONTINUE mode DONTWAKE|WP, shared") for line in lines)
    assert "# failed: userfaultfd shmem: fill modes" in lines
    assert "# failed: userfaultfd anon" in lines
    assert lines[-1] == "# Totals: pass:1 fail:2 xfail:0 xpass:0 skip:0 error:0"


def test_the_plan_has_the_commands_that_run_the_selftests():
    old, new = (Selftests(dict.fromkeys(names), "") for names in (["userfaultfd"], ["uffd-unit-tests", "uffd-stress"]))
    assert [call[1] for call in plan(old)][:4] == ["anon", "hugetlb", "hugetlb_shared", "shmem"]
    assert ("uffd-stress", "hugetlb-private", "128", "32") in plan(new, full=True)
    assert plan(new)[0] == ("uffd-unit-tests",)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "not a kernel's source tree"),
        ({"Makefile": "all:\n"}, "not a kernel's source tree"),
        ({"Makefile": "PATCHLEVEL = 1\n"}, "has no userfaultfd tests"),
    ],
)
def test_a_tree_without_userfaultfd_tests_is_an_error(tmp_path, monkeypatch, files, message):
    monkeypatch.setenv("UFFDLAB_CACHE", str(tmp_path / "cache"))
    tree = tmp_path / "tree"
    tree.mkdir()
    for name, text in files.items():
        (tree / name).write_text(text)
    with pytest.raises(KernelError, match=message):
        kselftest.of_tree(tree)
    assert [path.name for path in tree.rglob("*")] == list(files)
    assert list((tmp_path / "cache").rglob("making-*")) == []
    result = CliRunner().invoke(main, ["selftest", "6.1-series", "--tree", str(tree)])
    assert (result.exit_code, message in result.output) == (125, True)


MAKEFILE = "PATCHLEVEL = 1\nheaders:\n\tmkdir -p $(O)/usr/include; echo '#define THREE 3' >$(O)/usr/include/three.h\n"
TEST_MAKEFILE = "$(OUTPUT)/%: %.c\n\techo made >note; $(CC) $(KHDR_INCLUDES) $< -o $@\n"


@pytest.fixture
def tree(tmp_path, monkeypatch):
    monkeypatch.setenv("UFFDLAB_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "tree" / "tools/testing/selftests/vm"
    folder.mkdir(parents=True)
    (tmp_path / "tree" / "Makefile").write_text(MAKEFILE)
    (folder / "Makefile").write_text(TEST_MAKEFILE)
    (folder / "userfaultfd.c").write_text("#include <three.h>\nint main(void) { return THREE; }\n")
    return tmp_path / "tree"


def test_a_tree_is_compiled_once_and_not_written_to(tree, monkeypatch):
    before = sorted(tree.rglob("*"))
    selftests = kselftest.of_tree(tree)
    assert list(selftests.programs) == ["userfaultfd"]
    assert sorted(tree.rglob("*")) == before
    monkeypatch.setattr(kselftest, "_make", lambda *_: pytest.fail("compiled again"))
    assert kselftest.of_tree(tree) == selftests
    (tree / "tools/testing/selftests/vm/userfaultfd.c").write_text("int main(void) { return 4; }\n")
    with pytest.raises(pytest.fail.Exception, match="compiled again"):
        kselftest.of_tree(tree)


def test_selftests_that_do_not_compile_are_an_error(tree):
    (tree / "tools/testing/selftests/vm/userfaultfd.c").write_text("int main(void) { return FOUR; }\n")
    result = CliRunner().invoke(main, ["selftest", "6.1-series", "--tree", str(tree)])
    assert (result.exit_code, "FOUR" in result.output) == (125, True), result.output


@pytest.mark.parametrize("arguments", [["no-such-kernel"], ["6.1-series", "--tree", "no/such/folder"], ["/dev/null"]])
def test_a_kernel_without_source_for_the_selftests_is_bad_usage(monkeypatch, tmp_path, arguments):
    monkeypatch.setenv("UFFDLAB_CACHE", str(tmp_path))
    result = CliRunner().invoke(main, ["selftest", *arguments])
    assert result.exit_code == 2
    assert "no kernel is called" in result.output
    assert "--tree FOLDER" in result.output
