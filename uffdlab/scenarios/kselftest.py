"""Run the kernel's own userfaultfd tests in a guest, and write their results as KTAP."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from uffdlab.errors import ProgramError
from uffdlab.uapi.protocol.agent import ReserveHugepages

if TYPE_CHECKING:
    from uffdlab.kernels.kselftest import Selftests
    from uffdlab.lab import Lab

DEADLINE = 1800.0  # seconds for one program; uffd-unit-tests alone takes minutes under emulation
# One CPU: under emulation on a busy host, two CPUs mostly wait for each other's locks.  "events on anon" of 6.12 took
# 36 s with one CPU, and had not ended after 120 s with two.
MEMORY_MIB, CPUS = 1536, 1

_HUGE = 2 << 20
_HUGE_PAGES = 80  # for uffd-unit-tests, which maps 32 MiB twice
_SKIPPED = 4  # KSFT_SKIP of kselftest.h
# uffd-unit-tests before 6.17: "Testing minor-wp on shmem... skipped [reason: feature missing]"
_TESTING = re.compile(r"Testing (.+)\.\.\. (done|skipped|failed)(?: \[reason: (.*?)\]?)?\s*$")
# From then on KTAP.
_KTAP = re.compile(r"(not )?ok \d+ (?:- )?(.*?)(?: # (SKIP|XFAIL)\b ?(.*))?\s*$")
_KTAP_SKIPPED = re.compile(r"ok \d+ # SKIP (.*?)(?: \((.*)\))?\s*$")  # as kselftest.h writes it
# vm/userfaultfd of 6.1: "testing UFFDIO_ZEROPAGE: done."
_STEP = re.compile(r"testing ([^:]+):(.*)")
_PROBLEM = re.compile(r"FAIL: |ERROR: |\d+ of \d+ combinations failed")


@dataclass
class KselftestCase:
    """One test case of a test program.

    Attributes
    ----------
    name : str
    verdict : str
        ``pass``, ``fail`` or ``skip``.
    notes : list of str
        The lines that the program printed about it.
    """

    name: str
    verdict: str
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Run:
    """One run of a test program; `verdict` is the verdict of the whole program."""

    command: tuple[str, ...]
    verdict: str
    cases: list[KselftestCase]
    notes: list[str]

    @property
    def name(self) -> str:
        """The call as text."""
        return " ".join(self.command)


def plan(tests: Selftests, *, full: bool = False) -> list[tuple[str, ...]]:
    """Return the commands of the kernel's run_vmtests.sh: with its sizes if `full`, else with smaller ones."""
    small, huge = (("20", "16"), ("128", "32")) if full else (("4", "1"), ("32", "1"))
    if "userfaultfd" in tests.programs:
        return [
            ("userfaultfd", kind + how, *rest)
            for how in ("", ":dev")
            for kind, *rest in (
                ("anon", *small),
                ("hugetlb", *huge),
                ("hugetlb_shared", *huge, "/dev/hugepages/uffd-test"),
                ("shmem", *small),
            )
        ]
    kinds = {"anon": small, "hugetlb": huge, "hugetlb-private": huge, "shmem": small, "shmem-private": small}
    return [("uffd-unit-tests",), *(("uffd-stress", kind, *sizes) for kind, sizes in kinds.items())]


def run(lab: Lab, tests: Selftests, calls: list[tuple[str, ...]], *, deadline: float = DEADLINE) -> Iterator[Run]:
    """Run the programs in a lab's guest, one after the other, with the huge pages that they need.

    Raises
    ------
    MachineError
        The guest failed.
    """
    # Pages for source and destination, twice: forked children copy them, and some are reserved before others are freed.
    most = max((int(call[2]) for call in calls if len(call) > 2 and call[1].startswith("hugetlb")), default=0)
    lab.ask(ReserveHugepages(_HUGE, max(_HUGE_PAGES, 4 * (most << 20) // _HUGE)), deadline=60.0)
    for call in calls:
        program, *rest = call
        try:
            done = lab.exec([f"./{program}", *rest], push=[tests.programs[program]], deadline=deadline)
        except ProgramError as error:
            cases, notes = parse(error.stdout.decode(errors="replace"), good=False)
            yield Run(call, "fail", cases, [*notes, *error.stderr.decode(errors="replace").splitlines(), str(error)])
            continue
        good = done.status in (0, _SKIPPED)
        cases, notes = parse(done.text, good=good)
        notes += done.stderr.decode(errors="replace").splitlines()
        if not good:
            notes.append(f"exit status {done.status}")
        failed = not good or any(case.verdict == "fail" for case in cases)
        yield Run(call, "fail" if failed else "skip" if done.status == _SKIPPED else "pass", cases, notes)


def parse(text: str, *, good: bool) -> tuple[list[KselftestCase], list[str]]:
    """Return the test cases in a program's output, and the lines that belong to no case.

    Parameters
    ----------
    text : str
        In any of the formats that these tests have had.
    good : bool
        Whether the program succeeded.  If it did not, a step without an end has failed.
    """
    cases: list[KselftestCase] = []
    notes: list[str] = []
    step: KselftestCase | None = None
    for line in text.splitlines():
        if found := _TESTING.match(line):
            verdict = {"done": "pass", "skipped": "skip", "failed": "fail"}[found[2]]
            cases.append(KselftestCase(found[1], verdict, [found[3]] if found[3] else []))
        elif found := _KTAP_SKIPPED.match(line):
            cases.append(KselftestCase(found[1], "skip", [found[2]] if found[2] else []))
        elif found := _KTAP.match(line):
            verdict = "fail" if found[1] and found[3] != "XFAIL" else "skip" if found[3] == "SKIP" else "pass"
            cases.append(KselftestCase(found[2], verdict, [*notes, *([found[4]] if found[4] else [])]))
            notes = []
        elif found := _STEP.match(line):
            if step is not None and step.verdict == "open":
                step.verdict = "pass"
            step = KselftestCase(found[1], "pass" if "done" in found[2] else "open")
            cases.append(step)
        elif step is not None and _PROBLEM.match(line):
            step.verdict = "fail"
            step.notes.append(line)
        elif line.strip() and not line.startswith(("TAP version", "KTAP version", "1..", "# Totals:")):
            notes.append(line.removeprefix("# "))
    if step is not None and step.verdict == "open":
        step.verdict = "pass" if good else "fail"
    return cases, notes


def ktap(
    lab: Lab, tests: Selftests, calls: list[tuple[str, ...]], runs: Iterator[Run], out: Callable[[str], None]
) -> bool:
    """Write the runs as KTAP (Documentation/dev-tools/ktap.rst), line by line; return whether all passed."""
    out("KTAP version 1")
    out(f"# userfaultfd selftests of {tests.source}")
    out(f"# on {lab.kernel}, Linux {lab.release}")
    out(f"1..{len(calls)}")
    total = dict.fromkeys(("pass", "fail", "skip"), 0)
    failed = []
    for number, each in enumerate(runs, 1):
        if each.cases:
            out("  KTAP version 1")
            out(f"  1..{len(each.cases)}")
        for place, case in enumerate(each.cases, 1):
            for note in case.notes if case.verdict == "fail" else ():
                out(f"  # {note}")
            reason = f" # SKIP {' '.join(case.notes)}".rstrip() if case.verdict == "skip" else ""
            out(f"  {_ok(case.verdict)} {place} {case.name.replace('#', ' ')}{reason}")
            total[case.verdict] += 1
            if case.verdict == "fail":
                failed.append(f"{each.name}: {case.name}")
        for note in each.notes:
            out(f"# {note}")
        out(f"{_ok(each.verdict)} {number} {each.name}" + (" # SKIP" if each.verdict == "skip" else ""))
        if not each.cases or (each.verdict == "fail" and all(case.verdict != "fail" for case in each.cases)):
            total[each.verdict] += 1
            failed += [each.name] if each.verdict == "fail" else []
    for name in failed:
        out(f"# failed: {name}")
    out(f"# Totals: pass:{total['pass']} fail:{total['fail']} xfail:0 xpass:0 skip:{total['skip']} error:0")
    return not failed


def _ok(verdict: str) -> str:
    return "not ok" if verdict == "fail" else "ok"
