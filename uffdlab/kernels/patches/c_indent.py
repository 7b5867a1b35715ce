"""Indent added lines of C that have lost their indentation, in the kernel's style and to fit the lines before them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from uffdlab.kernels.patches.c_tokens import change_as, fold, likeness

if TYPE_CHECKING:
    from collections.abc import Sequence

_TAB = 8
_MOST_LINES_BEFORE = 400  # lines
_ALIKE = 0.6
_DEFINE = re.compile(r"(#\s*define\s+\w+(?:\([^)]*\))?)\s+(\S.*)")
_CASE = re.compile(r"(case\b.*|default\s*):")
_LABEL = re.compile(r"[A-Za-z_]\w*:$")
_HEAD = re.compile(r"(?:\} *)?(?:if|else|for|while|do|switch|\w*for_each\w*)\b[^;]*$")
_TEXT = re.compile(r'"(?:[^"\\]|\\.)*"|\'(?:[^\'\\]|\\.)*\'|/\*.*?\*/|//.*')


def restore(before: Sequence[str], removed: Sequence[str], added: Sequence[str]) -> list[str]:
    """Return the lines `added`, indented.

    Parameters
    ----------
    before : sequence of str
        The lines of the new file before them.
    removed : sequence of str
        The tree's own lines that they replace; may be empty.
    """
    made: list[str] = []
    used = 0
    for index, line in enumerate(added):
        text = line.strip()
        done = None
        scores = [likeness(text, old) for old in removed[used:]]
        if text and scores and max(scores) >= _ALIKE:
            old = removed[used + scores.index(max(scores))]
            used += scores.index(max(scores)) + 1
            done = change_as(old, old, text)
            if done is None or fold(done) != fold(text):
                done = _lead(old) + text
            if made and len(removed) != len(added):  # it may now be in the body of a new if
                done = _line([*before[-_MOST_LINES_BEFORE:], *made], done.strip())
        elif text and len(removed) == len(added):
            done = _lead(removed[index]) + text
            used = index + 1
        if done is None:
            done = _line([*before[-_MOST_LINES_BEFORE:], *made], text)
        made.append(done)
    return made


def _line(before: list[str], text: str) -> str:
    if not text:
        return ""
    if text.startswith("#"):
        return _define(before, text)
    comment = _open_comment(before)
    if comment is not None:
        return comment + (" " if text.startswith("*") else "") + text
    return _lead_of_code(_code(before), text) + text


def _lead_of_code(code: list[str], text: str) -> str:
    if not code or (_LABEL.match(text) and not _CASE.match(text)):
        return ""
    inside = _open_paren(code)
    if inside is not None:
        return inside
    if text.startswith("}"):
        return _opener(code)
    return _switch(code) if _CASE.match(text) else _statement(code, text)


def _statement(code: list[str], text: str) -> str:
    # Returns the indentation of a new statement after complete ones.
    last = code[-1].strip()
    start = _start(code, len(code) - 1)
    lead = _lead(code[start])
    if _LABEL.match(last) and not _CASE.match(last):
        return lead + "\t"
    if last.endswith("{") or (_CASE.match(last) and last.endswith(":")):
        return lead + "\t"
    if _HEAD.match(code[start].strip()) and not last.endswith((";", "}")):
        return lead if text == "{" else lead + "\t"
    # The body of an if without braces is one statement, so the next one has the indentation of the if.
    while start > 0:
        above = _start(code, start - 1)
        head = code[above].strip()
        if not (_HEAD.match(head) and not code[start - 1].strip().endswith((";", "}", "{"))):
            break
        start, lead = above, _lead(code[above])
    return lead


def _start(code: list[str], index: int) -> int:
    # Returns the line on which the statement starts that ends on line `index`.
    depth = 0
    while True:
        depth += code[index].count(")") - code[index].count("(")
        if depth <= 0 or index == 0:
            return index
        index -= 1


def _open_paren(code: list[str]) -> str | None:
    # Returns white space that reaches to the column after the innermost open parenthesis. If the line above is inside
    # the same parenthesis, its indentation is used.
    depth = 0
    for back in range(len(code) - 1, max(-1, len(code) - 40), -1):
        line = code[back]
        for at in range(len(line) - 1, -1, -1):
            depth += {")": 1, "(": -1}.get(line[at], 0)
            if depth < 0:
                if back < len(code) - 1 and len(_closed(code[back + 1 :])) == 0:
                    return _lead(code[-1])
                width = len(line[: at + 1].expandtabs(_TAB))
                return _tabs(width) if line[at + 1 :].strip() else _lead(line) + "\t"
        if line.strip().endswith((";", "{", "}")) and depth == 0 and back < len(code) - 1:
            return None
    return None


def _closed(code: list[str]) -> str:
    # Returns the parentheses that these lines leave open.
    open_ = ""
    for letter in "".join(code):
        if letter == "(":
            open_ += letter
        elif letter == ")":
            open_ = open_[:-1]
    return open_


def _opener(code: list[str]) -> str:
    depth = 0
    for index in range(len(code) - 1, -1, -1):
        depth += code[index].count("}") - code[index].count("{")
        if depth < 0:
            return _lead(code[_start(code, index)])
    return ""


def _switch(code: list[str]) -> str:
    depth = 0
    for index in range(len(code) - 1, -1, -1):
        if depth == 0 and _CASE.match(code[index].strip()):
            return _lead(code[index])
        depth += code[index].count("}") - code[index].count("{")
        if depth < 0:
            return _lead(code[_start(code, index)])
    return ""


def _open_comment(before: list[str]) -> str | None:
    for line in reversed(before[-60:]):
        if "*/" in line:
            return None
        if "/*" in line:
            return _tabs(len(line[: line.index("/*")].expandtabs(_TAB)))
    return None


def _define(before: list[str], text: str) -> str:
    # Aligns the value with that of the #define before it.
    mine = _DEFINE.fullmatch(text)
    for line in reversed(before[-12:]):
        theirs = _DEFINE.match(line)
        if mine and theirs and "\t" in line[theirs.end(1) : theirs.start(2)]:
            column = len(line[: theirs.start(2)].expandtabs(_TAB))
            gap = column - len(mine[1])
            if gap > 0 and column % _TAB == 0:
                return mine[1] + "\t" * -(-gap // _TAB) + mine[2]
    return text


def _code(before: list[str]) -> list[str]:
    # Returns the lines without comments, strings, preprocessor lines and blank lines. The indentation is unchanged.
    code: list[str] = []
    comment = False
    for line in before:
        text = _TEXT.sub(lambda found: '"' * len(found[0]) if found[0][0] in "\"'" else "", line)
        if comment:
            comment = "*/" not in text
            continue
        if "/*" in text:
            comment = True
            text = text[: text.index("/*")]
        if text.strip() and not text.startswith("#"):
            code.append(text.rstrip())
    return code


def _lead(line: str) -> str:
    return line[: len(line) - len(line.lstrip())]


def _tabs(width: int) -> str:
    return "\t" * (width // _TAB) + " " * (width % _TAB)
