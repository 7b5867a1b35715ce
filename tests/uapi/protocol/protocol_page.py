"""Write docs/reference/protocol.md from uffdlab.uapi.protocol.

Run ``python tests/uapi/protocol/protocol_page.py``.
"""

import inspect
import re
import types
import typing
from pathlib import Path

from uffdlab.uapi.protocol import agent, target, witnesses
from uffdlab.uapi.protocol.base import METHODS, Answer
from uffdlab.uapi.protocol.errors import ERROR_KINDS
from uffdlab.uapi.protocol.notifications import HOST_NOTIFICATIONS, NOTIFICATIONS

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "protocol.md"
HEAD = """# The wire between host and guest

<!-- Made by tests/uapi/protocol/protocol_page.py from uffdlab/uapi/protocol/, which also has the
ranges of values. -->

MessagePack-RPC: a request is `[0, id, method, parameters]`, an answer `[1, id, error, answer]`, a
notification `[2, method, parameters]`. On the way through the agent the parameters of a `target.*`
request are preceded by the deadline in seconds.

In Python a request is a value, and `lab.ask(request)` returns an answer of the type listed here.
Any other answer raises a `ProtocolError` that names the method and the field.
"""
ERRORS = """An error is a map in place of the answer: `kind`, `message`, `data`. Any other kind is the name of
a Python exception in the agent."""


def type_name(kind):
    if typing.get_origin(kind) is typing.Annotated:
        return type_name(typing.get_args(kind)[0])
    if kind in (None, types.NoneType):
        return "nil"
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        return " or ".join(map(type_name, typing.get_args(kind)))
    if typing.get_origin(kind) is typing.Literal:
        return " or ".join(map(str, typing.get_args(kind)))
    if typing.get_origin(kind):
        arguments = ", ".join("…" if argument is ... else type_name(argument) for argument in typing.get_args(kind))
        return f"{typing.get_origin(kind).__name__}[{arguments}]"
    return getattr(kind, "__name__", str(kind))


def field_list(entry):
    hints = typing.get_type_hints(entry, include_extras=True)
    return ", ".join(f"`{name}`: {type_name(hints[name])}" for name in entry.__struct_fields__)


def description(entry):
    text = re.sub(r":\w+:`~?([^`]*)`", r"`\1`", inspect.getdoc(entry)).replace("``", "`")
    return " ".join(text.split())


def table(heads, rows):
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "or") for cell in line) + " |" for line in lines)


def answer_types():
    found, remaining = [], list(Answer.__subclasses__())
    while remaining:
        kind = remaining.pop(0)
        remaining += kind.__subclasses__()
        found.append(kind)
    return sorted(found, key=lambda kind: kind.__name__)


def methods_in_order():
    # METHODS has the order in which the modules were imported.
    found = {
        each.method: each
        for module in (agent, target, witnesses)
        for each in vars(module).values()
        if getattr(each, "__module__", "") == module.__name__ and each in METHODS.values()
    }
    assert found.keys() == METHODS.keys()
    return found


def page():
    methods = [[f"`{name}`", f"`{each.__name__}`", field_list(each), type_name(each.answer()), description(each)]
               for name, each in methods_in_order().items()]  # fmt: skip
    notifications = [[f"`{name}`", field_list(each), description(each)] for name, each in NOTIFICATIONS.items()]
    answers = [[f"`{each.__name__}`", field_list(each), description(each)] for each in answer_types()]
    kinds = [[f"`{kind}`", meaning] for kind, meaning in ERROR_KINDS.items()]
    host = ", ".join(f"`{name}`" for name in HOST_NOTIFICATIONS)
    return (
        "\n\n".join(
            [
                HEAD.rstrip(),
                "## Methods",
                table(["method", "request", "parameters", "answer", "what it does"], methods),
                "## Answers",
                table(["type", "fields", "meaning"], answers),
                "## Notifications",
                table(["notification", "parameters", "meaning"], notifications),
                f"The host sends {host} to an agent behind ssh regularly, to show that the connection is up.",
                "## Errors",
                ERRORS,
                table(["kind", "meaning"], kinds),
            ]
        )
        + "\n"
    )


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
