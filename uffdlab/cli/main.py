"""The command line: the list of commands and the module of each."""

from __future__ import annotations

import click

from uffdlab import settings
from uffdlab.cli import exit_status
from uffdlab.cli.lazy_group import LazyCommand, LazyGroup

COMMANDS = {
    "cache": LazyCommand("uffdlab.cli.cache", "cache", "Show what the cache has and how large it is; empty it."),
    "capabilities": LazyCommand(
        "uffdlab.cli.capabilities", "capabilities", "Show what each KERNEL can do with a userfaultfd, side by side."
    ),
    "demo": LazyCommand("uffdlab.cli.demo", "demo", "Show on four kernels what UFFDIO_CONTINUE with WP does."),
    "doctor": LazyCommand(
        "uffdlab.cli.doctor", "doctor", "Check what this host has and lacks for labs; say what to do."
    ),
    "exec": LazyCommand("uffdlab.cli.guest", "execute", "Run COMMAND in a fresh guest of KERNEL."),
    "export": LazyCommand("uffdlab.cli.notebook", "export", "Write NOTEBOOK, as it was saved, to one HTML file."),
    "fuzz": LazyCommand("uffdlab.cli.fuzz", "fuzz", "Make random calls on KERNEL and compare each with a model."),
    "kernel": LazyCommand("uffdlab.cli.kernel", "kernel", "The kernels under test: list, build, add, compare."),
    "lab": LazyCommand("uffdlab.cli.jupyterlab", "lab", "Open JupyterLab on copies of the notebooks."),
    "notebook": LazyCommand("uffdlab.cli.notebook", "notebook", "Run NOTEBOOK and write it, as executed, to PAGE."),
    "run": LazyCommand("uffdlab.cli.run", "run", "Run SCENARIO on each KERNEL."),
    "selftest": LazyCommand("uffdlab.cli.guest", "selftest", "Run the kernel's own userfaultfd tests on KERNEL."),
    "vagrant": LazyCommand(
        "uffdlab.cli.vagrant", "vagrant", 'The VM of vm/Vagrantfile, which Lab(machine="vagrant") uses.'
    ),
    "witness-audit": LazyCommand("uffdlab.cli.witness_audit", "witness_audit", "Compare all witnesses on each KERNEL."),
}


@click.group(cls=LazyGroup, lazy=COMMANDS, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="uffdlab")
def main() -> None:
    """A lab bench for userfaultfd: choose a kernel, touch a page, see its page-table entry change."""
    with exit_status.from_errors():
        settings.make_paths_absolute()
