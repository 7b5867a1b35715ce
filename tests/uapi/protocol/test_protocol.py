"""The agent has exactly the methods, notifications and kinds of error that uapi.protocol lists."""

import ast
import inspect
import os
from pathlib import Path

import pytest

from uffdlab import agent
from uffdlab.agent import commands, init, server, stdio, target
from uffdlab.machines.rpc import client
from uffdlab.uapi.protocol.base import METHODS, VERSION, AgentMethod, TargetMethod
from uffdlab.uapi.protocol.errors import ERROR_KINDS
from uffdlab.uapi.protocol.notifications import NOTIFICATIONS

from . import protocol_page

SOURCES = sorted(Path(agent.__file__).parent.rglob("*.py"))
TAKES_REQUEST_NUMBER = {"agent.exec"}  # it answers later, so its function also takes the number of the request


@pytest.fixture(scope="module")
def functions():
    """Return the function of the agent or its target for each method."""
    ends = os.pipe()
    serving = server.Server(*ends)
    found = {
        **serving._methods,
        "agent.exec": serving._programs.start,
        "agent.after_restore": init.after_restore,
        **target.Target(lambda *_: None, os.urandom(32), 0x10_0000_0000).methods,
    }
    yield found
    for end in ends:
        os.close(end)


def calls_to(*names):
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
                if name in names and node.args and isinstance(node.args[0], ast.Constant):
                    yield node.args[0].value, len(node.args) - 1


def parameters_of(entry):
    """Return the default of each parameter; without one, Parameter.empty."""
    defaults = entry.__struct_defaults__
    required = len(entry.__struct_fields__) - len(defaults)
    return dict(zip(entry.__struct_fields__, (inspect.Parameter.empty,) * required + defaults, strict=True))


def test_the_agent_has_every_method_and_no_other(functions):
    assert functions.keys() == METHODS.keys()


@pytest.mark.parametrize("name", METHODS)
def test_a_method_takes_the_parameters_that_are_listed(functions, name):
    found = dict(inspect.signature(functions[name]).parameters)
    if name in TAKES_REQUEST_NUMBER:
        assert found.pop("number")
    assert {each.name: each.default for each in found.values()} == parameters_of(METHODS[name])
    assert list(found) == list(METHODS[name].__struct_fields__)


@pytest.mark.parametrize("name", METHODS)
def test_a_method_belongs_to_the_process_in_its_name(name):
    assert issubclass(METHODS[name], TargetMethod if name.startswith("target.") else AgentMethod)
    assert METHODS[name].method == name
    assert inspect.getdoc(METHODS[name])


def test_methods_that_a_kind_of_machine_replaces_are_listed():
    # stdio and init put their own functions in place of some.
    sources = (inspect.getsource(stdio), inspect.getsource(init))
    overridden = [
        node.value
        for text in sources
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.startswith("agent.")
    ]
    assert overridden
    assert set(overridden) <= METHODS.keys()
    assert commands.METHODS.keys() <= METHODS.keys()


def test_the_agent_sends_the_listed_notifications():
    sent = dict(calls_to("notify", "_notify"))
    assert sent == {name: len(entry.__struct_fields__) for name, entry in NOTIFICATIONS.items()}


def test_the_agent_refuses_with_the_listed_kinds_of_error():
    used = {kind for kind, _ in calls_to("Refusal")} | {
        "target-lost",
        "fault-unresolved",
    }  # of a lost target, without a Refusal
    assert used == ERROR_KINDS.keys()
    assert client.ERRORS.keys() <= ERROR_KINDS.keys()


def test_host_and_agent_have_one_protocol_version():
    assert server.PROTOCOL == VERSION


def test_the_generated_page_of_the_protocol_is_current():
    assert protocol_page.PAGE.read_text(encoding="utf-8") == protocol_page.page(), (
        "python tests/uapi/protocol/protocol_page.py"
    )
