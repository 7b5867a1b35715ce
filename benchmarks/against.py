"""What a lab costs in this tree and in another one, measured in turns in one run: how a change is compared with before.

Each tree is measured by its own interpreter, ``.venv/bin/python``, from its own folder.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from harness import Row

HERE = Path(__file__).resolve().parent.parent
KERNEL = "debian/trixie"  # the same image in both trees, whatever their patch series
DEADLINE = 600.0  # seconds
# Reads a kind of measurement a line, and answers with its seconds.
WORKER = """
import sys, time
from uffdlab import Lab, kernels
try:
    from uffdlab.machines.qemu.start import start
except ImportError:  # an earlier tree, where qemu is a module
    from uffdlab.machines.qemu import start
name = sys.argv[1]
kernel = kernels.get(name)
actions = {"lab": lambda: Lab(name), "cold": lambda: start(kernel, cold=True)}
for line in sys.stdin:
    started = time.perf_counter()
    made = actions[line.strip()]()
    booted = time.perf_counter() - started
    made.close()
    closed = time.perf_counter() - started
    print(closed if line.strip() == "lab" else booted, flush=True)
"""
SCRIPT = "import sys; from uffdlab import Lab; Lab(sys.argv[1]).close()"
IMPORT = "import uffdlab.lab"


class Tree:
    """A checkout with its ``.venv``, and a process of it that measures.

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
        # Those who use uffdlab have it compiled.
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
        """The commit, or the folder's name where git knows none."""
        said = subprocess.run(
            ["git", "-C", self.folder, "log", "-1", "--format=%h"], capture_output=True, text=True, check=False
        )
        return said.stdout.strip() or self.folder.name

    def lab(self) -> float:
        """Return the seconds to make and close a lab, in a process that has made one."""
        return self._ask("lab")

    def cold(self) -> float:
        """Return the seconds from a boot without a saved state to the agent's hello."""
        return self._ask("cold")

    def script(self) -> float:
        """Return the seconds of a new process that imports the library, makes a lab and closes it."""
        return self._run(SCRIPT, KERNEL)

    def imports(self) -> float:
        """Return the seconds of a new process that imports the lab."""
        return self._run(IMPORT)

    def close(self) -> None:
        """End the process."""
        with contextlib.suppress(OSError):
            self._worker.communicate(timeout=30)

    def _ask(self, what: str) -> float:
        assert self._worker.stdin
        assert self._worker.stdout
        self._worker.stdin.write(f"{what}\n")
        self._worker.stdin.flush()
        answer = self._worker.stdout.readline()
        if not answer:
            raise SystemExit(f"benchmarks: {self.folder} could not measure {what}; see above")
        return float(answer)

    def _run(self, code: str, *arguments: str) -> float:
        started = time.perf_counter()
        subprocess.run(
            [self._python, "-c", code, *arguments],
            cwd=self.folder,
            env=self._environment,
            check=True,
            timeout=DEADLINE,
        )
        return time.perf_counter() - started


def rows(folder: Path) -> Iterator[Row]:
    """The peer is the tree in `folder`."""
    with contextlib.ExitStack() as stack:
        ours, before = (stack.enter_context(contextlib.closing(Tree(each))) for each in (HERE, folder))
        measurements: list[tuple[str, Callable[[Tree], float], int]] = [
            ("import uffdlab.lab, a new process", Tree.imports, 15),
            ("Lab made and closed", Tree.lab, 15),
            ("Lab made and closed, a new process", Tree.script, 15),
            ("boot to hello", Tree.cold, 7),
        ]
        for name, measure, runs in measurements:
            times = _in_turns(ours, before, measure, runs)
            for of, value in (("", statistics.median), (", the quickest", min)):
                mine, theirs = (value(each) for each in times)
                yield Row(f"{name}{of}", mine, "s", before.name, theirs)


def _in_turns(ours: Tree, before: Tree, measure: Callable[[Tree], float], runs: int) -> tuple[list[float], list[float]]:
    # Each goes first as often as the other, so that what else the machine does is shared out between both.
    times: tuple[list[float], list[float]] = ([], [])
    pair = list(zip((ours, before), times, strict=True))
    for tree, _ in pair:
        measure(tree)
    for run in range(runs):
        for tree, into in pair if run % 2 else reversed(pair):
            into.append(measure(tree))
    print(f"  {measure.__name__}: {runs} pairs", file=sys.stderr, flush=True)
    return times
