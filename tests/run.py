"""Run the parts of `make test` and print how long each took:  python tests/run.py [PART…]   (default: the usual ones).

A part that fails does not stop the ones after it. Ends with 0 when all passed, with 1 otherwise.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from types import FrameType

ROOT = Path(__file__).resolve().parent.parent
REPORTS = ROOT / "build" / "test"
PYTHON = sys.executable
# Chromium, QEMU and pytest need this long to clean up after themselves when they are told to stop.
GRACE = 30.0


@dataclass(frozen=True)
class Part:
    """One part of the tests: commands run one after the other, all of them also when one fails."""

    commands: list[list[str]]
    minutes: float  # past this the part is stopped and has failed


def _module(name: str, *arguments: str) -> list[str]:
    return [PYTHON, "-m", name, *arguments]


def _pytest(part: str, *arguments: str) -> list[str]:
    return _module("pytest", f"--junitxml={REPORTS / part}.xml", *arguments)


_IGNORED = [f"--ignore=tests/{name}" for name in ("vm", "browser", "vagrant", "install")]
# Two guests at once; the tests of one file share theirs.
BY_FILE = ["--numprocesses=logical", "--dist=loadfile"]
# The tests that run this project's C on this host.
SANITIZED = ["-m", "not long", "tests/native/test_sanitizers.py", "tests/agent", "tests/bulk", "tests/witnesses"]
PARTS = {
    "check": Part(
        [
            _module("ruff", "check"),
            _module("ruff", "format", "--check"),
            [str(Path(PYTHON).with_name("lint-imports")), "--no-logo"],
            *(_module("mypy", *of) for of in ([], ["benchmarks"], ["tests/run.py", "tests/user_script.py"])),
        ],
        10,
    ),
    "unit": Part(
        [
            _pytest(
                *("unit", "-m", "not vm and not browser and not vagrant and not install and not long", *_IGNORED),
                *("--numprocesses=logical", "--dist=worksteal"),
            )
        ],
        15,
    ),
    # Before the parts that boot kernels, so that no test's deadline has to allow for a build.
    "kernels": Part([_module("uffdlab", "kernel", "build", "--all")], 40),
    "vm": Part([_pytest("vm", "-m", "not long", "tests/vm", "--ignore=tests/vm/test_notebooks.py", *BY_FILE)], 20),
    "notebook": Part([_pytest("notebook", "tests/vm/test_notebooks.py")], 10),
    "browser": Part([_pytest("browser", "-m", "not long", "tests/browser")], 15),
    # Every memory type on every kernel, every widget with a real VM, races for minutes, and compilers' analyzers and
    # sanitizers for this project's C: only when it is named.
    "long": Part(
        [
            _pytest(
                *("long", "-m", "long", "tests/vm", "tests/browser", "tests/agent", "tests/native"),
                *("--ignore=tests/vm/test_upstream.py", *BY_FILE),
            ),
            [PYTHON, "tests/native/sanitized.py", f"--junitxml={REPORTS / 'sanitized.xml'}", *SANITIZED],
        ],
        150,
    ),
    # Four 7.3 kernels are compiled for it: hours, so only when it is named.
    "upstream": Part([_pytest("upstream", "tests/vm/test_upstream.py")], 600),
    # A kernel with KASAN and lockdep: an hour to build and to run, so only when it is named.
    "debug": Part(
        [
            _module("uffdlab", "kernel", "build", "6.1-series+debug", "6.1-base+debug", "6.1-base+unfixed"),
            _pytest("debug", "-s", "tests/debug"),
        ],
        240,
    ),
    # A whole Debian from Vagrant, under libvirt and without it: only when it is named.
    "vagrant": Part(
        [
            _module("uffdlab", "kernel", "build", "6.1-series+vagrant", "6.1-base+vagrant"),
            _pytest("vagrant", "tests/vagrant"),
        ],
        180,
    ),
    # The wheel on bare systems, and the container: packages for several systems are fetched, so only when it is named.
    "install": Part([_pytest("install", "tests/install")], 120),
}
USUAL = [name for name in PARTS if name not in {"long", "upstream", "debug", "vagrant", "install"}]
BOOTING = {"vm", "notebook", "browser", "long"}


@dataclass
class Outcome:
    """How one part went: its seconds and the tests it counted."""

    seconds: float = 0.0
    why: str = ""  # "" when all is well
    passed: int = 0
    failed: int = 0
    skipped: int = 0


def _stop(process: subprocess.Popen[bytes]) -> None:
    # Each part is a process group of its own, so that its browsers and machines are reached too.
    for number in (signal.SIGINT, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
            process.wait(GRACE)
        except ProcessLookupError:
            break
        except subprocess.TimeoutExpired:
            continue
    process.wait()


def _run(command: list[str], deadline: float) -> str:
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, process_group=0)
    try:
        code = process.wait(max(1.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        return "stopped: took too long"
    finally:
        if process.poll() is None:
            _stop(process)
    return "" if code == 0 else f"exit {code}"


def _count(report: Path, outcome: Outcome) -> None:
    if not report.exists():
        return
    for suite in ET.parse(report).getroot().iter("testsuite"):
        tests, bad, skipped = (
            sum(int(suite.get(key, 0)) for key in keys) for keys in (["tests"], ["failures", "errors"], ["skipped"])
        )
        outcome.passed += tests - bad - skipped
        outcome.failed += bad
        outcome.skipped += skipped


def _run_part(name: str) -> Outcome:
    part, outcome, report = PARTS[name], Outcome(), REPORTS / f"{name}.xml"
    report.unlink(missing_ok=True)
    start = time.monotonic()
    for command in part.commands:
        shown = " ".join(Path(argument).name if argument == PYTHON else argument for argument in command)
        print(f"\n=== {name}: {shown}", flush=True)
        outcome.why = _run(command, start + 60 * part.minutes) or outcome.why
    outcome.seconds = time.monotonic() - start
    _count(report, outcome)
    if outcome.why and not outcome.failed:
        outcome.failed = 1
    return outcome


def _table(outcomes: dict[str, Outcome]) -> None:
    print(f"\n{'part':<10} {'time':>7}  {'passed':>6} {'failed':>6} {'skipped':>7}")
    for name, each in outcomes.items():
        clock = f"{int(each.seconds) // 60}:{int(each.seconds) % 60:02}"
        print(f"{name:<10} {clock:>7}  {each.passed:>6} {each.failed:>6} {each.skipped:>7}  {each.why or 'ok'}")
    total = int(sum(each.seconds for each in outcomes.values()))
    print(f"{'all':<10} {f'{total // 60}:{total % 60:02}':>7}\n")
    passed, failed, skipped = (
        sum(getattr(each, key) for each in outcomes.values()) for key in ("passed", "failed", "skipped")
    )
    print(f"{passed} passed, {failed} failed, {skipped} skipped", flush=True)


def _interrupt(number: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt(signal.Signals(number).name)


def _in_order(names: list[str]) -> list[str]:
    # Build the kernels before a part that boots them, also if it is named alone.  It takes a second if they exist.
    return ["kernels", *names] if BOOTING & set(names) and "kernels" not in names else names


def main(names: list[str]) -> int:
    unknown = [name for name in names if name not in PARTS]
    if unknown:
        print(f"tests/run.py: no such part: {' '.join(unknown)}; there are: {' '.join(PARTS)}", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, _interrupt)
    # A shell that starts this in the background lets it ignore SIGINT, which the tests of Ctrl-C would inherit.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    REPORTS.mkdir(parents=True, exist_ok=True)
    outcomes: dict[str, Outcome] = {}
    try:
        for name in _in_order(names or USUAL):
            outcomes[name] = _run_part(name)
    except KeyboardInterrupt:
        print("\nstopped", file=sys.stderr)
        _table(outcomes)
        return 130
    _table(outcomes)
    return int(any(each.failed for each in outcomes.values()))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
