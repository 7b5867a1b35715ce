"""``uffdlab lab``: JupyterLab on copies of the notebooks.

The notebooks that people work in are copies, which stay; those that come with uffdlab are not changed.
"""

from __future__ import annotations

import os
import platform
import re
import sys
from pathlib import Path

import click

from uffdlab.cli import exit_status
from uffdlab.data_folders import data_folder
from uffdlab.errors import HostUnsupported

_FIRST = "minor_wp.ipynb"
_SUN_PATH = 108  # bytes, with the NUL at the end; unix(7)
_VERSION = re.compile(r'("version": )"3\.\d+\.\d+"')


def copy_notebooks(folder: Path) -> list[Path]:
    """Copy each notebook into `folder`; return those that were there already, which are left as they are.

    Jupyter writes the version of Python into a notebook when it opens it.  A copy has that version from the start, so
    that JupyterLab does not show an unchanged copy as unsaved.

    Raises
    ------
    HostUnsupported
        The folder cannot be made or written to.
    """
    here = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for source in sorted(data_folder("notebooks").glob("*.ipynb")):
            copy = folder / source.name
            text = _VERSION.sub(rf'\1"{platform.python_version()}"', source.read_text(encoding="utf-8"))
            try:
                with copy.open("x", encoding="utf-8") as file:
                    file.write(text)
            except FileExistsError:
                here.append(copy)
    except OSError as error:
        raise HostUnsupported(
            f"the notebooks cannot be copied to {folder}: {error.strerror}; give another folder, uffdlab lab FOLDER",
            missing="folder",
        ) from error
    return here


def _sockets_fit() -> bool:
    # Jupyter's kernels listen on sockets beside their connection files, kernel-UUID-ipc-N.  sun_path has 108 bytes.
    from jupyter_core.paths import jupyter_runtime_dir

    longest = f"{jupyter_runtime_dir()}/kernel-{'0' * 36}-ipc-999"
    return len(os.fsencode(longest)) < _SUN_PATH


class _CommandWithJupyterOptions(click.Command):
    # click takes what follows -- for arguments, and the first of them would be the folder.
    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        at = args.index("--") if "--" in args else len(args)
        ctx.obj = args[at + 1 :]
        return super().parse_args(ctx, args[:at])


@click.command(cls=_CommandWithJupyterOptions, options_metavar="", epilog="Example: uffdlab lab mine -- --no-browser")
@click.argument("folder", type=click.Path(path_type=Path), default=Path("uffdlab-notebooks"),
                metavar="[FOLDER] [-- OPTIONS]")  # fmt: skip
@click.option("--copy-only", is_flag=True, help="Copy the notebooks, and do not open JupyterLab.")
@click.pass_obj
def lab(options: list[str], folder: Path, copy_only: bool) -> None:
    """Open JupyterLab on copies of the notebooks in FOLDER (default: uffdlab-notebooks).

    A copy that is there already stays as it is.  OPTIONS after -- are JupyterLab's.
    """
    with exit_status.from_errors("lab"):
        for copy in copy_notebooks(folder):
            click.echo(f"Your {copy} stays as it is; remove it to get a new copy.")
    if copy_only:
        return
    sys.stdout.flush()
    sockets = ["--KernelManager.transport=ipc"] if _sockets_fit() else []
    root = ["--allow-root"] if os.geteuid() == 0 else []
    settings = [f"--ServerApp.root_dir={folder.resolve()}", f"--LabApp.default_url=/lab/tree/{_FIRST}"]
    # Ctrl-C and the exit status are JupyterLab's own.
    os.execv(sys.executable, [sys.executable, "-m", "jupyterlab", *root, *sockets, *settings, *options])  # noqa: S606
