"""Configs that come out as asked for, and make's complaints."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uffdlab.kernels.build import NEEDED, dropped_options, first_errors, missing_needed

options = st.dictionaries(
    st.from_regex(r"CONFIG_[A-Z0-9_]{1,8}", fullmatch=True),
    st.sampled_from(["y", "m", "n", '"text"', "64"]),
    min_size=1,
)


def lines(chosen: dict[str, str]) -> list[str]:
    return [f"# {name} is not set" if value == "n" else f"{name}={value}" for name, value in chosen.items()]


@given(options, options)
def test_nothing_dropped(asked, more):
    assert dropped_options("\n".join(lines(asked)), "\n".join(lines({**more, **asked}))) == []


@given(options, st.data())
def test_each_drop_is_named(asked, data):
    gone = data.draw(st.sampled_from(sorted(asked)))
    config = {name: value for name, value in asked.items() if name != gone}
    if asked[gone] == "n":
        config[gone] = "y"
    assert dropped_options("\n".join(lines(asked)), "\n".join(lines(config))) == lines({gone: asked[gone]})


def test_comments_are_no_options_and_the_last_line_counts():
    assert dropped_options("# CONFIG_A is wonderful\nCONFIG_B=y\nCONFIG_B=m\n", "CONFIG_B=m\n") == []


@pytest.mark.parametrize(
    ("compiler_output", "shown"),
    [
        (
            ["make[1]: *** [x.o] Error 1", "mm/x.c:4:9: error: 'A' undeclared", "ld: x.o: undefined reference to `f'"],
            "mm/x.c:4:9: error: 'A' undeclared\nld: x.o: undefined reference to `f'",
        ),
        (["mm/x.c:1:10: fatal error: no.h: No such file"], "mm/x.c:1:10: fatal error: no.h: No such file"),
        (["make: *** No rule to make target 'x'.  Stop."], "make: *** No rule to make target 'x'.  Stop."),
        ([f"a.c:{line}: error: x" for line in range(20)], "\n".join(f"a.c:{line}: error: x" for line in range(5))),
        ([], ""),
    ],
)
def test_first_errors(compiler_output, shown):
    assert first_errors(compiler_output) == shown


@pytest.mark.parametrize("name", NEEDED)
def test_what_the_lab_cannot_do_without_is_missed_off_or_absent(name):
    config = "".join(f"{each}=y\n" for each in NEEDED)
    assert missing_needed(config) == []
    assert missing_needed(config.replace(f"{name}=y\n", "")) == [name]
    assert missing_needed(config.replace(f"{name}=y\n", f"# {name} is not set\n")) == [name]
    assert missing_needed(config.replace(f"{name}=y\n", f"{name}=m\n")) == [name]
