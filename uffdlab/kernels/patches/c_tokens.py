"""Lines of C compared and changed token by token, so that white space does not matter and is kept."""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_TOKEN = re.compile(r"(\s*)(\w+|[^\w\s])")


def fold(text: str) -> str:
    """Take all white space out."""
    return "".join(text.split())


def likeness(one: str, other: str) -> float:
    """Say how much of two lines is the same, 0 to 1."""
    return difflib.SequenceMatcher(None, _words(one), _words(other), autojunk=False).ratio()


def change_as(tree: str, removed: str, added: str) -> str | None:
    """Make the change from `removed` to `added` in `tree`, a line like `removed`; None where it has no place there."""
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
            # The line's indentation is the tree's, whatever token comes first.
            if kind == "insert":
                result[len(fresh)] = (following, result[len(fresh)][1])
            result[0] = (lead, result[0][1])
    return "".join(blank + word for blank, word in result)


def _words(text: str) -> list[str]:
    return [word for _, word in _TOKEN.findall(text)]


def _matcher(one: Sequence[tuple[str, str]], other: Sequence[tuple[str, str]]) -> difflib.SequenceMatcher[str]:
    return difflib.SequenceMatcher(None, [word for _, word in one], [word for _, word in other], autojunk=False)
