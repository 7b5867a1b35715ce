"""Compares the cost of a lab in this tree with another tree.  One run measures both in turn.

Each tree is measured by its own interpreter, ``.venv/bin/python``, from its own folder.  CPU time is that of the
process and its children, QEMU included.  On a busy machine it is more reliable than wall-clock time.
"""

from __future__ import annotations

import contextlib
import os
import resource
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from harness import Row

HERE = Path(__file__).resolve().parent.parent
KERNEL = "debian/trixie"  # the same image in both trees, whatever their patch series
DEADLINE = 600.0  # seconds
# Reads the name of one measurement per line.  Answers with its seconds, of wall-clock and CPU time.
WORKER = """
import resource, sys, time
from uffdlab import Lab, kernels
try:
    from uffdlab.machines.qemu.start import start
except ImportError:  # an earlier tree, where qemu is a module
    from uffdlab.machines.qemu import start
name = sys.argv[1]
kernel = kernels.get(name)
actions = {"lab": lambda: Lab(name), "cold": lambda: start(kernel, cold=True)}
def cpu():
    used = [resource.getrusage(of) for of in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)
for line in sys.stdin:
    started, before = time.perf_counter(), cpu()
    made = actions[line.strip()]()
    booted = time.perf_counter() - started
    made.close()
    closed = time.perf_counter() - started
    print(closed if line.strip() == "lab" else booted, cpu() - before, flush=True)
"""
SCRIPT = "import sys; from uffdlab import Lab; Lab(sys.argv[1]).close()"
IMPORT = "import uffdlab.lab"


class Seconds(NamedTuple):
    """One measurement: wall-clock and CPU time."""

    clock: float
    cpu: float


class Tree:
    """A checkout with its ``.venv``, and a process there that measures.

    Parameters
    ----------
    folder : Path
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self._python = self.folder / ".venv" / "bin" / "python"
        if not self._python.is_file():
            raise SystemExit(f"benchmarks: {folder} has no .venv/bin/python; run make setup there")
        self._environment = dict(os.environ)
        # Users of uffdlab have its bytecode.
        self._environment.pop("PYTHONDONTWRITEBYTECODE", None)
        self._worker = subprocess.Popen(
            [self._python, "-c", WORKER, KERNEL],
            cwd=self.folder,
            env=self._environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    @property
    def name(self) -> str:
        """The commit, or the folder's name outside of git."""
        revision = subprocess.run(
            ["git", "-C", self.folder, "log", "-1", "--format=%h"], capture_output=True, text=True, check=False
        )
        return revision.stdout.strip() or self.folder.name

    def lab(self) -> Seconds:
        """Return the time to make and close a lab, in a process that has already made one."""
        return self._ask("lab")

    def cold(self) -> Seconds:
        """Return the time from a boot without a saved state to the agent's hello."""
        return self._ask("cold")

    def script(self) -> Seconds:
        """Return the time of a new process that imports the library, makes a lab and closes it."""
        return self._run(SCRIPT, KERNEL)

    def imports(self) -> Seconds:
        """Return the time of a new process that imports the lab."""
        return self._run(IMPORT)

    def close(self) -> None:
        """End the process."""
        with contextlib.suppress(OSError):
            self._worker.communicate(timeout=30)

    def _ask(self, measurement: str) -> Seconds:
        assert self._worker.stdin
        assert self._worker.stdout
        self._worker.stdin.write(f"{measurement}\n")
        self._worker.stdin.flush()
        answer = self._worker.stdout.readline()
        if not answer:
            raise SystemExit(f"benchmarks: {self.folder} could not measure {measurement}; see above")
        return Seconds(*map(float, answer.split()))

    def _run(self, code: str, *arguments: str) -> Seconds:
        started, before = time.perf_counter(), _children()
        # Not with subprocess's timeout: it polls for the end only every 50 ms.
        with subprocess.Popen(
            [self._python, "-c", code, *arguments], cwd=self.folder, env=self._environment
        ) as process:
            watchdog = threading.Timer(DEADLINE, process.kill)
            watchdog.start()
            status = process.wait()
            watchdog.cancel()
        if status:
            raise SystemExit(f"benchmarks: {self.folder}: {code!r} ended with {status}; see above")
        return Seconds(time.perf_counter() - started, _children() - before)


def _children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def rows(folder: Path) -> Iterator[Row]:
    """Measure both trees; the peer is the tree in `folder`."""
    with contextlib.ExitStack() as stack:
        ours, before = (stack.enter_context(contextlib.closing(Tree(path))) for path in (HERE, folder))
        measurements: list[tuple[str, Callable[[Tree], Seconds], int]] = [
            ("import uffdlab.lab, a new process", Tree.imports, 15),
            ("Lab made and closed", Tree.lab, 15),
            ("Lab made and closed, a new process", Tree.script, 15),
            ("boot to hello", Tree.cold, 7),
        ]
        for name, measure, runs in measurements:
            times = _in_turns(ours, before, measure, runs)
            for kind, field in (("", "clock"), (", CPU", "cpu")):
                for summary, value in (("", statistics.median), (", least", min)):
                    mine, theirs = (value([getattr(seconds, field) for seconds in tree_times]) for tree_times in times)
                    yield Row(f"{name}{kind}{summary}", mine, "s", before.name, theirs)


def _in_turns(
    ours: Tree, before: Tree, measure: Callable[[Tree], Seconds], runs: int
) -> tuple[list[Seconds], list[Seconds]]:
    # Each goes first as often as the other, so that other load on the machine affects both alike.
    times: tuple[list[Seconds], list[Seconds]] = ([], [])
    pair = list(zip((ours, before), times, strict=True))
    for tree, _ in pair:
        measure(tree)
    for run in range(runs):
        for tree, into in pair if run % 2 else reversed(pair):
            into.append(measure(tree))
    print(f"  {measure.__name__}: {runs} pairs", file=sys.stderr, flush=True)
    return times
