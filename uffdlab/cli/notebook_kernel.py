"""The Jupyter kernel that runs a notebook for a command: what it does, and every way in which it can fail."""

from __future__ import annotations

import logging
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from traitlets.config import Config

from uffdlab.errors import HostUnsupported, UffdlabError

if TYPE_CHECKING:
    import nbformat

CELL_DEADLINE = 600  # seconds; the kernels are built before, but a machine may be slow to answer
START_DEADLINE = 120  # seconds until Jupyter's kernel answers


def run_cells(document: nbformat.NotebookNode, path: Path) -> None:
    """Run every cell of a notebook in a fresh Python kernel, which ends with this; the outputs go into the notebook.

    The kernel listens on sockets that have a name and no file, so no other host and no browser can reach it, and
    nothing is left if this process is killed.

    Parameters
    ----------
    document : NotebookNode
        The notebook, which gets the outputs.
    path : Path
        The file it was read from; the kernel starts in its folder.

    Raises
    ------
    UffdlabError
        A cell failed or missed its deadline; the cells before it have their outputs.
    HostUnsupported
        Jupyter's kernel did not start, did not answer, or ended.
    """
    client = NotebookClient(
        document,
        timeout=CELL_DEADLINE,
        startup_timeout=START_DEADLINE,
        kernel_name="python3",
        store_widget_state=False,
        resources={"metadata": {"path": str(path.parent)}},
        extra_arguments=["--log-level=CRITICAL"],  # the errors of one that is interrupted are not the user's
        config=Config({"KernelManager": {"transport": "ipc", "ip": f"@uffdlab-{uuid.uuid4().hex}"}}),
    )
    client.reset_execution_trackers()
    advice = "The kernel `python3` of `jupyter kernelspec list` must be this Python, with ipykernel"
    try:
        # NotebookClient.execute() takes over SIGINT, and does not survive it.
        with client.setup_kernel():
            advice = "The cell may have ended it, or memory was short"
            for number, cell in enumerate(document.cells):
                client.execute_cell(cell, number)
    except KeyboardInterrupt:
        # The task that waited for the cell ends with an error, which nobody waits for any more.
        logging.getLogger("asyncio").setLevel(logging.CRITICAL)
        raise
    except CellExecutionError as error:
        raise UffdlabError(f"a cell of {path} failed\n{error}") from error
    except CellTimeoutError as error:
        raise UffdlabError(f"a cell of {path} did not end within {CELL_DEADLINE} s\n{error}") from error
    # KeyError is the base of Jupyter's NoSuchKernel.
    except (DeadKernelError, KeyError, RuntimeError, OSError) as error:
        why = str(error) or type(error).__name__
        raise HostUnsupported(
            f"{path} was not run to its end, because of Jupyter's kernel: {why.rstrip('.')}. {advice}",
            missing="a Jupyter kernel",
        ) from error
