"""Write the man pages of docs/man from the commands' help:  python tests/cli/man_pages.py

uffdlab(1) has the list of commands, the exit statuses and the settings; each command has a page of its own, in which
the commands of a group are sections.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import click

import uffdlab
from uffdlab.cli import exit_status
from uffdlab.cli.main import COMMANDS, main

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "docs" / "man"


def escaped(text: str) -> str:
    """Return a line as roff text, in which `code` is bold."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    text = re.sub(r"`([^`]*)`", r"\\fB\1\\fR", text)
    return f"\\&{text}" if text.startswith((".", "'")) else text


def paragraphs(text: str) -> Iterator[str]:
    for paragraph in inspect.cleandoc(text).split("\n\n"):
        yield ".PP"
        yield escaped(" ".join(paragraph.split()))


def listed(rows: list[tuple[str, str]]) -> Iterator[str]:
    for term, meaning in rows:
        yield from (".TP", f"\\fB{escaped(term)}\\fR", escaped(" ".join(meaning.split())))


def title(name: str) -> str:
    return f'.TH {name.upper()} 1 "" "uffdlab {uffdlab.__version__}" "User Commands"'


def usage(command: click.Command, context: click.Context) -> str:
    return " ".join([f"\\fB{escaped(context.command_path)}\\fR", *map(escaped, command.collect_usage_pieces(context))])


def body(command: click.Command, context: click.Context, heading: Callable[[str], str]) -> Iterator[str]:
    """Yield what a command's help says, without its usage."""
    yield from paragraphs(command.help or "")
    options = [
        record
        for each in command.get_params(context)
        if isinstance(each, click.Option) and (record := each.get_help_record(context))
    ]
    if options and not isinstance(command, click.Group):
        yield heading("Options")
        yield from listed(options)
    if command.epilog:
        kind, _, examples = command.epilog.partition(": ")
        yield heading(kind)
        for example in examples.split("; "):
            yield from (".PP", ".RS", ".nf", escaped(example), ".fi", ".RE")


def page_of(name: str) -> str:
    """Return the page of a command, with those below it if it is a group."""
    command = COMMANDS[name].load()
    top = click.Context(main, info_name="uffdlab", **main.context_settings)
    context = click.Context(command, info_name=name, parent=top, **command.context_settings)
    page = f"uffdlab-{name}"
    lines = [title(page), ".SH NAME", f"{escaped(page)} \\- {escaped(COMMANDS[name].short_help.rstrip('.'))}"]
    lines += [".SH SYNOPSIS", usage(command, context), ".SH DESCRIPTION"]
    lines += body(command, context, lambda text: f".SH {text.upper()}")
    if isinstance(command, click.Group):
        lines.append(".SH COMMANDS")
        for below in command.list_commands(context):
            found = command.get_command(context, below)
            assert found is not None
            inner = click.Context(found, info_name=below, parent=context)
            lines += [f'.SS "{escaped(inner.command_path)}"', ".PP", usage(found, inner)]
            lines += body(found, inner, lambda text: f".PP\n{text}:")
    lines += [".SH SEE ALSO", ".BR uffdlab (1)"]
    return "\n".join(lines) + "\n"


def exit_statuses() -> list[tuple[str, str]]:
    """Return the rows of the table in the docstring of uffdlab.cli.exit_status."""
    return re.findall(r"^(\d+) +(.*)$", exit_status.__doc__ or "", re.MULTILINE)


def settings_rows() -> list[tuple[str, str]]:
    """Return each variable and what it is, from docs/reference/settings.md."""
    text = (ROOT / "docs/reference/settings.md").read_text(encoding="utf-8")
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| `UFFDLAB_")]
    plain = [[re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", cell.replace("\\|", "|")) for cell in row] for row in rows]
    return [(row[0].strip("`"), f"{row[2]}. Default: {row[3]}.") for row in plain]


def main_page() -> str:
    """Return uffdlab(1)."""
    summary = (main.help or "").rstrip(".")
    lines = [title("uffdlab"), ".SH NAME", f"uffdlab \\- {escaped(summary[0].lower() + summary[1:])}"]
    lines += [".SH SYNOPSIS", "\\fBuffdlab\\fR COMMAND [OPTIONS] [ARGUMENTS]...", ".SH DESCRIPTION"]
    lines += paragraphs(
        "A notebook or a script on the host controls a virtual machine that runs the kernel under test. These commands "
        "fetch and build the kernels, run experiments and programs on them, and open the notebooks. Each has a page: "
        "`man uffdlab-run`."
    )
    lines.append(".SH COMMANDS")
    lines += listed([(f"uffdlab-{name}(1)", command.short_help) for name, command in sorted(COMMANDS.items())])
    lines.append(".SH EXIT STATUS")
    lines += listed(exit_statuses())
    lines.append(".SH ENVIRONMENT")
    lines += paragraphs("Each variable is also a key of `config.toml`. An empty one is like one that is not set.")
    lines += listed(settings_rows())
    lines.append(".SH FILES")
    lines += listed(
        [
            ("~/.config/uffdlab/config.toml", "Settings."),
            ("~/.config/uffdlab/kernels.toml", "The kernels that you added, with their patches beside it."),
            ("~/.cache/uffdlab", "Kernels, their sources, saved guests. It can be removed at any time."),
        ]
    )
    return "\n".join(lines) + "\n"


def pages() -> dict[str, str]:
    """Return every page by its file name."""
    return {"uffdlab.1": main_page(), **{f"uffdlab-{name}.1": page_of(name) for name in COMMANDS}}


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for old in FOLDER.glob("*.1"):
        old.unlink()
    for file, text in pages().items():
        (FOLDER / file).write_text(text, encoding="utf-8")
