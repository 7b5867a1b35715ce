"""Runs the agent's own classes in a process of a test's, which may end in any way."""

import os
import subprocess
import sys
import textwrap

# The agent's own classes in a process of the test's: its memory, and one page that is registered and never resolved.
_PARTS = """
import mmap, os, resource, select, signal, threading
from uffdlab.agent import native, userfaultfds
from uffdlab.agent.children import Children
from uffdlab.agent.native import lib
from uffdlab.agent.rpc import Refusal
from uffdlab.agent.touches import Touches
from uffdlab.uapi.layout import LAYOUTS

PAGE = native.map_memory(0, 4096, 3, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1)
touches = Touches()
children = Children(touches.done_fd)

def register():
    opened = userfaultfds.Userfaultfds()
    fd = opened.fd(opened.open(0, 0)["number"])
    fields = {"start": PAGE, "len": 4096, "mode": 1}
    assert userfaultfds.call(fd, LAYOUTS["UFFDIO_REGISTER"], fields)["errno"] == 0
    return fd
"""


def run(*scripts, **environment):
    """Run them in a session of their own, since a signal may go to the whole group; return what they printed."""
    script = "".join(textwrap.dedent(each) for each in scripts)
    done = subprocess.run(
        [sys.executable, "-c", _PARTS + script],
        env={**os.environ, **environment},
        start_new_session=True,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()
