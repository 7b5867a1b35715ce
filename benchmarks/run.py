"""Runs the benchmarks:  python benchmarks/run.py [SUBJECT…]   (bench_SUBJECT.py; all of them if none is named).

``--against FOLDER`` compares with another checkout, which has its own .venv: see against.py.

Prints a table and writes build/bench/results.json, a list of {name, value, unit, peer, peer_value, ratio}.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import against
from harness import Row

HERE = Path(__file__).resolve().parent
RESULTS = HERE.parent / "build" / "bench" / "results.json"


def _as_json(row: Row) -> dict[str, object]:
    return {
        "name": row.name,
        "value": row.value,
        "unit": row.unit,
        "peer": row.peer,
        "peer_value": row.peer_value,
        "ratio": row.ratio,
    }


def _line(row: Row) -> str:
    line = f"{row.name:<44} {row.value:>9.4g} {row.unit:<3}"
    if row.peer_value is None or row.ratio is None:
        return line
    return f"{line} {row.ratio:>9.3g} × {row.peer} ({row.peer_value:.4g} {row.unit})"


def _shown(rows: Iterator[Row]) -> Iterator[Row]:
    for row in rows:
        print(_line(row), flush=True)
        yield row


def main(arguments: list[str]) -> int:
    """Run the benchmarks of the given subjects; compare with another tree if asked."""
    parser = argparse.ArgumentParser(prog="benchmarks/run.py")
    parser.add_argument("subjects", nargs="*", metavar="SUBJECT")
    parser.add_argument("--against", type=Path, metavar="FOLDER", help="compare with this checkout")
    options = parser.parse_args(arguments)
    subjects: list[str] = options.subjects
    known = sorted(path.stem.removeprefix("bench_") for path in HERE.glob("bench_*.py"))
    unknown = [subject for subject in subjects if subject not in known]
    if unknown:
        print(f"benchmarks: no such subject: {' '.join(unknown)}; there are: {' '.join(known)}", file=sys.stderr)
        return 2
    rows: list[Row] = []
    start = time.monotonic()
    for subject in subjects or ([] if options.against else known):
        print(f"# {subject}", flush=True)
        rows += _shown(importlib.import_module(f"bench_{subject}").rows())
    if options.against:
        print(f"# against {options.against}", flush=True)
        rows += _shown(against.rows(options.against))
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(
        json.dumps([_as_json(row) for row in rows], indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    print(f"{len(rows)} rows in {time.monotonic() - start:.0f} s, written to {RESULTS.relative_to(HERE.parent)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
