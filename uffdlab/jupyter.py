"""What IPython and Jupyter get of this package: names to complete in strings, tables of objects, live comparisons.

``import uffdlab`` calls :func:`install` if it runs in one of them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

_Values = Callable[[], Iterable[str]]


class OpenString(NamedTuple):
    """The string in which a line of Python ends, within the arguments of a call.

    Attributes
    ----------
    call : str
        The last name before the parenthesis: ``map`` of ``lab.map(``.
    keyword : str
        The argument's keyword, or empty.
    text : str
        What has been typed of the string.
    """

    call: str
    keyword: str
    text: str


def open_string(code: str) -> OpenString | None:
    """Return the string in which `code` ends, None if it ends in none, or not within a call."""
    brackets: list[int] = []
    quote, opened, since = "", 0, 0  # since: where this argument begins
    starts: list[int] = []
    for at, letter in enumerate(code):
        if quote:
            quote = "" if letter in (quote, "\n") else quote
        elif letter in "\"'":
            quote, opened = letter, at
        elif letter in "([{":
            brackets.append(at)
            starts.append(since)
            since = at + 1
        elif letter in ")]}" and brackets:
            brackets.pop()
            since = starts.pop()
        elif letter == ",":
            since = at + 1
    if not quote or not brackets:
        return None
    call = re.search(r"(\w+)\s*\($", code[: brackets[-1] + 1])
    before = re.fullmatch(r"\s*(?:(\w+)\s*=)?\s*", code[since:opened])
    if call is None or before is None:
        return None
    return OpenString(call[1], before[1] or "", code[opened + 1 :])


def _kernels() -> Iterable[str]:
    from uffdlab.kernels import Supply  # noqa: PLC0415

    return Supply().names()


def _memory() -> Iterable[str]:
    from uffdlab.uapi.memory import MEMORY  # noqa: PLC0415

    return MEMORY


def _modes() -> Iterable[str]:
    from uffdlab.uapi import RegisterMode  # noqa: PLC0415

    return [str(mode.name).lower() for mode in RegisterMode]


def _ioctls() -> Iterable[str]:
    from uffdlab.uapi import IOCTLS  # noqa: PLC0415

    return IOCTLS


def _advice() -> Iterable[str]:
    from uffdlab.target.syscalls import ADVICE  # noqa: PLC0415

    return ADVICE


def _witnesses() -> Iterable[str]:
    from uffdlab.witnesses.selection import NAMES  # noqa: PLC0415

    return NAMES


def _fixed(*names: str) -> _Values:
    return lambda: names


# By call and keyword; an empty keyword stands for any argument by position.
_STRINGS: dict[tuple[str, str], _Values] = {
    ("Lab", ""): _kernels,
    ("Lab", "kernel"): _kernels,
    ("Lab", "machine"): _fixed("qemu", "local", "ssh:", "vagrant"),
    ("map", "memory"): _memory,
    ("bench", "memory"): _memory,
    ("register", ""): _modes,
    ("ioctl", ""): _ioctls,
    ("batch", ""): _ioctls,
    ("start", ""): _ioctls,
    ("madvise", ""): _advice,
    ("start_madvise", ""): _advice,
    ("snapshot", ""): _witnesses,
    ("snapshot", "witness"): _witnesses,
    ("witness", ""): _witnesses,
    ("sweep", ""): _fixed("read", "write", "modify"),
    ("sweep", "order"): _fixed("ascending", "descending", "random"),
    ("handle_natively", "missing"): _fixed("copy", "copy_wp", "zeropage", "poison", "forward"),
    ("handle_natively", "minor"): _fixed("continue", "continue_wp", "poison", "forward"),
    ("handle_natively", "wp"): _fixed("unprotect", "forward"),
    ("handle_natively", "rwp"): _fixed("unprotect", "forward"),
}


def completions(code: str) -> tuple[str, list[str]]:
    """Return what has been typed of the string in which `code` ends, and the names that it can become."""
    string = open_string(code)
    values = None if string is None else _STRINGS.get((string.call, string.keyword))
    if string is None or values is None:
        return "", []
    return string.text, [name for name in values() if name.startswith(string.text)]


def install(shell: Any) -> None:
    """Complete names in strings and show objects as tables, in this IPython."""
    from IPython.core.completer import SimpleCompletion, context_matcher  # noqa: PLC0415

    @context_matcher(identifier="uffdlab")  # type: ignore[untyped-decorator]
    def matcher(context: Any) -> Any:
        typed, names = completions(context.full_text[: context.cursor_position])
        found = [SimpleCompletion(text=name, type="uffdlab") for name in names]
        return {"completions": found, "suppress": bool(found), "matched_fragment": typed, "ordered": True}

    shell.Completer.custom_matchers.append(matcher)
    html = shell.display_formatter.formatters["text/html"]
    for name, module in _MODULES.items():
        html.for_type_by_name(f"uffdlab.{module}", name, _table_of)
    if hasattr(shell, "kernel"):  # a notebook, no terminal
        live = shell.display_formatter.ipython_display_formatter
        live.for_type_by_name("uffdlab.figures.pictures", "Comparison", _show_live)


def _show_live(comparison: Any) -> None:
    from uffdlab.widgets.compare_grids import CompareGrids  # noqa: PLC0415 - matplotlib, ipywidgets: a second

    CompareGrids.of(comparison)._ipython_display_()


def _table_of(shown: Any) -> str:
    from uffdlab.observations.html_table import html_table  # noqa: PLC0415

    title, rows = _ROWS[type(shown).__name__](shown)
    return html_table(title, (), [(head, str(cell)) for head, cell in rows])


_Table = tuple[str, list[tuple[str, object]]]  # its title, and each row's head and cell


def _lab(lab: Any) -> _Table:
    from uffdlab.errors import UffdlabError  # noqa: PLC0415

    machine, memory, since = lab.facts
    try:
        facts = [("release", lab.release), ("witnesses", ", ".join(lab.witnesses))]
    except UffdlabError as error:
        facts = [("state", error)]
    if repr(lab).endswith(": closed>"):
        facts = [("state", "closed")]
    rows = [
        *facts,
        ("machine", machine),
        *([("memory", memory)] if memory else []),
        ("open since", since),
        ("regions", ", ".join(region.name for region in lab.regions) or "none"),
        ("userfaultfds", len(lab.userfaultfds)),
        ("touches that have not ended", len(lab.touches)),
    ]
    return f"Lab: {lab.kernel}", rows


def _region(region: Any) -> _Table:
    from uffdlab.uapi.memory import MEMORY  # noqa: PLC0415

    rows = [
        ("memory", f"{region.memory}: {MEMORY[region.memory].about}"),
        ("pages", f"{region.pages:,} of {region.page_size:,} bytes"),
        ("address", f"{region.start:#x}"),
        ("alias", f"{region.alias.start:#x}" if region.has_alias else "none"),
        ("registered", _registered(region)),
        *([("state", region.lost)] if region.lost else []),
    ]
    return f"Region: {region.name}", rows


def _registered(region: Any) -> str:
    from uffdlab.uapi import RegisterMode, flag_names  # noqa: PLC0415

    owner = region.target.registry.owner_of(region.start, region.length)
    return f"{flag_names(owner[1], RegisterMode)}, with {owner[0]}" if owner else "no"


def _userfaultfd(uffd: Any) -> _Table:
    from uffdlab.uapi import Feature, flag_names  # noqa: PLC0415

    rows = [
        ("state", f"open, number {uffd.number}" if uffd.number else "closed"),
        ("opened by", uffd.way),
        ("features", flag_names(uffd.features, Feature).replace("|", ", ")),
        ("this kernel also offers", flag_names(int(uffd.offered) & ~int(uffd.features), Feature).replace("|", ", ")),
    ]
    return "Userfaultfd", rows


def _touch(touch: Any) -> _Table:
    from uffdlab.errors import UffdlabError  # noqa: PLC0415

    rows: list[tuple[str, object]] = [("address", f"{touch.address:#x}")]
    try:
        state = touch.state
        rows.insert(0, ("state", state))
        if state == "done":
            rows.append(("result", touch.result(0)))
        elif state == "failed":
            touch.result(0)
    except UffdlabError as error:
        rows.append(("error", error))
    if touch.waited_ns is not None:
        rows.append(("took", f"{touch.waited_ns / 1000:,.1f} µs"))
    return f"Touch: {touch.what}", rows


def _ioctl_result(result: Any) -> _Table:
    from uffdlab.errors import errno_name  # noqa: PLC0415

    rows = [
        ("returned", errno_name(result.errno)),
        ("done", f"{result.done:,} bytes"),
        *([("output field", result.output)] if result.output is not None else []),
        ("took", f"{result.took_ns / 1000:,.1f} µs"),
        ("argument, as the kernel left it", ", ".join(f"{name} {value:#x}" for name, value in result.fields.items())),
    ]
    return result.call, rows


def _fault(fault: Any) -> _Table:
    from uffdlab.uapi import FaultFlag, flag_names  # noqa: PLC0415

    kinds = [kind for kind in ("missing", "minor", "wp", "rwp") if getattr(fault, kind)]
    rows = [
        ("page", f"{fault.page} of {fault.region}" if fault.page is not None else "in no region"),
        ("address", f"{fault.address:#x}"),
        ("access", "write" if fault.write else "read"),
        ("kind", ", ".join(kinds)),
        ("flags", flag_names(fault.flags, FaultFlag) or "none"),
        ("thread", fault.thread or "not known"),
    ]
    return "Page fault", rows


def _execution(done: Any) -> _Table:
    rows = [
        ("exit status", done.status),
        ("stdout", _tail(done.stdout)),
        ("stderr", _tail(done.stderr)),
        ("took", f"{done.seconds:.2f} s"),
    ]
    return " ".join(done.command), rows


_MOST_OUTPUT = 2000  # characters of a program's output that a table shows


def _tail(output: bytes) -> str:
    text = output.decode(errors="replace")
    return text if len(text) <= _MOST_OUTPUT else f"… {text[-_MOST_OUTPUT:]}"


_ROWS: dict[str, Callable[[Any], _Table]] = {
    "Lab": _lab,
    "Region": _region,
    "Userfaultfd": _userfaultfd,
    "Touch": _touch,
    "IoctlResult": _ioctl_result,
    "Fault": _fault,
    "Execution": _execution,
}
_MODULES = {
    "Lab": "lab",
    "Region": "target.region",
    "Userfaultfd": "target.userfaultfd",
    "Touch": "target.touch",
    "IoctlResult": "target.results",
    "Fault": "uapi.messages",
    "Execution": "machines.programs",
}
