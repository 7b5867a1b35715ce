"""Options that a build drops or lacks, and the first errors in its output."""

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
def test_options_in_the_config_are_not_dropped(requested, others):
    assert dropped_options("\n".join(lines(requested)), "\n".join(lines({**others, **requested}))) == []


@given(options, st.data())
def test_a_dropped_option_is_named(requested, data):
    dropped = data.draw(st.sampled_from(sorted(requested)))
    config = {name: value for name, value in requested.items() if name != dropped}
    if requested[dropped] == "n":
        config[dropped] = "y"
    found = dropped_options("\n".join(lines(requested)), "\n".join(lines(config)))
    assert found == lines({dropped: requested[dropped]})


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
def test_the_first_errors_of_the_output_are_shown(compiler_output, shown):
    assert first_errors(compiler_output) == shown


@pytest.mark.parametrize("name", NEEDED)
def test_a_needed_option_is_missing_if_absent_off_or_a_module(name):
    config = "".join(f"{option}=y\n" for option in NEEDED)
    assert missing_needed(config) == []
    assert missing_needed(config.replace(f"{name}=y\n", "")) == [name]
    assert missing_needed(config.replace(f"{name}=y\n", f"# {name} is not set\n")) == [name]
    assert missing_needed(config.replace(f"{name}=y\n", f"{name}=m\n")) == [name]
