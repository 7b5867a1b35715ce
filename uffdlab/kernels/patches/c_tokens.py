"""Compare and change lines of C by tokens, without regard to white space. A change keeps the line's white space."""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_TOKEN = re.compile(r"(\s*)(\w+|[^\w\s])")


def fold(text: str) -> str:
    """Return the text without white space."""
    return "".join(text.split())


def likeness(one: str, other: str) -> float:
    """Return how alike two lines are by their tokens, from 0 to 1 (equal)."""
    return difflib.SequenceMatcher(None, _tokens(one), _tokens(other), autojunk=False).ratio()


def change_as(tree: str, removed: str, added: str) -> str | None:
    """Make the change from `removed` to `added` in the line `tree`, which is like `removed`.

    Return the changed line, or None if the change has no place in it.
    """
    result = list(_TOKEN.findall(tree))
    old, new = _TOKEN.findall(removed), _TOKEN.findall(added)
    if not result or not old or not new:
        return None
    where = {i + k: j + k for i, j, size in _matcher(old, result).get_matching_blocks() for k in range(size)}
    for kind, i1, i2, j1, j2 in reversed(_matcher(old, new).get_opcodes()):
        if kind == "equal":
            continue
        if kind == "insert":
            first = last = where[i1] if i1 in where else where.get(i1 - 1, -2) + 1
        else:
            first, last = where.get(i1, -1), where.get(i2 - 1, -2) + 1
        if first < 0 or last - first != i2 - i1:
            return None
        if kind == "replace" and bool(old[i1][0]) == bool(new[j1][0]):
            new[j1] = (result[first][0], new[j1][1])
        fresh = new[j1:j2]
        following = new[j2][0] if j2 < len(new) else ""
        lead = result[0][0]
        result[first:last] = fresh
        if first == 0 and result:
            # Keep the indentation of the tree's line when its first token changes.
            if kind == "insert":
                result[len(fresh)] = (following, result[len(fresh)][1])
            result[0] = (lead, result[0][1])
    return "".join(blank + token for blank, token in result)


def _tokens(text: str) -> list[str]:
    return [token for _, token in _TOKEN.findall(text)]


def _matcher(one: Sequence[tuple[str, str]], other: Sequence[tuple[str, str]]) -> difflib.SequenceMatcher[str]:
    return difflib.SequenceMatcher(None, [token for _, token in one], [token for _, token in other], autojunk=False)
