"""Measure the size of a built kernel's code by object and by function, and compare two kernels."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from uffdlab.errors import KernelError
from uffdlab.processes.job import JobTimeout, run

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

FILE = "sizes.json"

_DEADLINE = 300.0  # s
_AT_ONCE = 500  # objects in one command
_FUNCTION = re.compile(r"(.+?):[0-9a-f]+ ([0-9a-f]+) [tTwW] (\S+)")
_SIZE = re.compile(r"\s*(\d+)\s+\d+\s+\d+\s+\d+\s+[0-9a-f]+\s+(\S+)")
# The suffix that the compiler adds to the name of a part or a variant of a function.
_VARIANT = re.compile(r"\.(?:isra|constprop|part|cold|llvm)(?:\.\d+)?")


@dataclass(frozen=True)
class Sizes:
    """The sizes of a kernel's objects and functions.

    Attributes
    ----------
    kernel : str
    objects : dict of str to int
        Text (code and constants, as size(1) counts) of each object that is linked into vmlinux, in bytes.
    functions : dict of str to int
        Code of each function in bytes, including the parts that the compiler split off. The key is
        ``object function``.
    """

    kernel: str
    objects: dict[str, int]
    functions: dict[str, int]

    @property
    def total(self) -> int:
        """The text of all objects, in bytes."""
        return sum(self.objects.values())


@dataclass(frozen=True)
class Row:
    """The sizes in bytes of one object or function in two kernels; None where a kernel does not have it.

    A function that is missing may have been inlined.
    """

    name: str
    a: int | None
    b: int | None

    @property
    def difference(self) -> int:
        """The size in `b` minus the size in `a`, in bytes."""
        return (self.b or 0) - (self.a or 0)


@dataclass(frozen=True)
class SizeComparison:
    """Two kernels' sizes side by side.

    Attributes
    ----------
    a, b : Sizes
    objects, functions : tuple of Row
        Those that differ, the largest difference first.
    """

    a: Sizes
    b: Sizes
    objects: tuple[Row, ...]
    functions: tuple[Row, ...]

    def __str__(self) -> str:
        width = max((len(row.name) for row in (*self.objects, *self.functions)), default=0) + 2
        width = max(width, len("all that changed  "))

        def line(name: str, *cells: object) -> str:
            return name.ljust(width) + "".join(f"{cell:>14}" for cell in cells)

        def rows(of: Sequence[Row]) -> Iterator[str]:
            for row in of:
                cells = ("-" if size is None else size for size in (row.a, row.b))
                yield line(row.name, *cells, f"{row.difference:+d}")

        changed = Row("all that changed", sum(r.a or 0 for r in self.objects), sum(r.b or 0 for r in self.objects))
        return "\n".join(
            [
                line("text, bytes", self.a.kernel, self.b.kernel, "difference"),
                *rows(self.objects),
                *rows([changed, Row("all objects", self.a.total, self.b.total)]),
                "",
                line("functions, bytes", self.a.kernel, self.b.kernel, "difference"),
                *rows(self.functions),
            ]
        )

    def as_data(self) -> dict[str, object]:
        """Return the comparison in the types of JSON."""

        def rows(of: Sequence[Row]) -> list[dict[str, object]]:
            return [{"name": row.name, "a": row.a, "b": row.b, "difference": row.difference} for row in of]

        return {
            "a": self.a.kernel,
            "b": self.b.kernel,
            "objects": rows(self.objects),
            "functions": rows(self.functions),
            "total": {"a": self.a.total, "b": self.b.total, "difference": self.b.total - self.a.total},
        }


def measure(objects: Path, kernel: str) -> Sizes:
    """Return the sizes of what was linked into ``objects/vmlinux``.

    Raises
    ------
    KernelError
        The objects do not exist, or ar(1), size(1) or nm(1) failed.
    """
    members: list[str] = []
    _ask(["ar", "t", "vmlinux.a"], objects, kernel, members)
    texts: dict[str, int] = {}
    functions: Counter[str] = Counter()
    for start in range(0, len(members), _AT_ONCE):
        some = members[start : start + _AT_ONCE]
        lines: list[str] = []
        _ask(["size", "--", *some], objects, kernel, lines)
        texts |= {match[2]: int(match[1]) for line in lines if (match := _SIZE.fullmatch(line))}
        lines = []
        _ask(["nm", "-A", "-S", "--defined-only", "--", *some], objects, kernel, lines)
        for line in lines:
            if match := _FUNCTION.fullmatch(line):
                functions[f"{match[1]} {_VARIANT.sub('', match[3])}"] += int(match[2], 16)
    return Sizes(kernel, texts, dict(functions))


def compare(a: Sizes, b: Sizes) -> SizeComparison:
    """Return the objects and functions whose sizes differ in two kernels."""

    def rows(one: dict[str, int], other: dict[str, int]) -> tuple[Row, ...]:
        found = (Row(name, one.get(name), other.get(name)) for name in one.keys() | other.keys())
        return tuple(sorted((row for row in found if row.a != row.b), key=lambda row: (-abs(row.difference), row.name)))

    return SizeComparison(a, b, rows(a.objects, b.objects), rows(a.functions, b.functions))


def dump(sizes: Sizes) -> bytes:
    """Return the content of the file that :func:`load` reads."""
    return json.dumps({"objects": sizes.objects, "functions": sizes.functions}).encode()


def load(path: Path, kernel: str) -> Sizes | None:
    """Return the sizes in a file that :func:`dump` made, or None if there is no file."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return Sizes(kernel, found["objects"], found["functions"])


def _ask(command: list[str | Path], folder: Path, kernel: str, lines: list[str]) -> None:
    try:
        status, output = run(command, deadline=_DEADLINE, cwd=folder, on_line=lines.append)
    except JobTimeout:
        status, output = 1, f"not finished after {_DEADLINE:.0f} s"
    if status:
        raise KernelError(f"{kernel}: {command[0]} in {folder} ended with {status}: {output.strip()}", kernel=kernel)
