"""tests/native/sanitized.py leaves out only tests that exist: pytest accepts a name that no test has."""

import ast
from pathlib import Path

import pytest

from .sanitized import DESELECTED

AGENT = Path(__file__).resolve().parent.parent / "agent"


@pytest.mark.parametrize("name", DESELECTED)
def test_a_test_that_is_left_out_exists(name):
    file, _, function = name.partition("::")
    tests = {node.name for node in ast.parse((AGENT / file).read_text()).body if isinstance(node, ast.FunctionDef)}
    assert function.partition("[")[0] in tests
