"""A Result as text, JSON and KTAP."""

from __future__ import annotations

import json
from typing import Any

from uffdlab.scenarios.result import Result


def to_dict(result: Result) -> dict[str, Any]:
    """Return everything but the timeline's objects, ready for JSON."""
    return {
        "scenario": result.scenario,
        "kernel": result.kernel,
        "release": result.release,
        "witness": result.witness,
        "ok": result.ok,
        "checks": [
            {"name": check.name, "expected": check.expected, "observed": check.observed, "ok": check.ok}
            for check in result.checks
        ],
        "groups": [
            {"memory": g.memory, "pages": g.pages, "done": g.done, "before": g.before, "after": g.after}
            for g in result.groups
        ],
        "snapshots": {name: snapshot.to_dict() for name, snapshot in result.snapshots.items()},
        "timeline": [
            {"kind": entry.kind, "text": entry.text, "started_ns": entry.started_ns, "ended_ns": entry.ended_ns}
            for entry in result.timeline or ()
        ],
    }


def to_json(result: Result) -> str:
    """Return :func:`to_dict` as JSON text."""
    return json.dumps(to_dict(result), indent=1)


def to_text(result: Result) -> str:
    """Return the page groups, then every check that does not hold."""
    lines = [f"{result.kernel} (Linux {result.release}), seen by the {result.witness} witness"]
    lines += [
        f"  {g.memory:<8} pages {g.pages:<6} {g.done:<12} {g.before} → {g.after}" for g in result.groups
    ]  # fmt: skip
    good = sum(check.ok for check in result.checks)
    lines.append(f"  {good} of {len(result.checks)} checks hold")
    lines += [f"  ✗ {check.name}: expected «{check.expected}», observed «{check.observed}»" for check in result.failed]
    return "\n".join(lines)


def to_ktap(result: Result) -> str:
    """Return the checks in the kernel's test format (Documentation/dev-tools/ktap.rst), version 1."""
    lines = ["KTAP version 1", f"# {result.scenario} on {result.kernel} (Linux {result.release})"]
    lines.append(f"1..{len(result.checks)}")
    for number, check in enumerate(result.checks, 1):
        if not check.ok:
            lines.append(f"# expected: {check.expected}; observed: {check.observed}")
        lines.append(f"{'ok' if check.ok else 'not ok'} {number} {check.name.replace('#', ' ')}")
    good = sum(check.ok for check in result.checks)
    lines.append(f"# Totals: pass:{good} fail:{len(result.checks) - good} xfail:0 xpass:0 skip:0 error:0")
    return "\n".join(lines) + "\n"


#: The forms by the name that the command line takes.
FORMS = {"text": to_text, "json": to_json, "ktap": to_ktap}
