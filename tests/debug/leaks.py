"""Memory that a kernel with config/debug.config reports as never freed."""

from __future__ import annotations

from uffdlab.lab import Lab

_DEBUGFS = "/sys/kernel/debug"
# Selects the page_owner records that have one of our functions in the stack.  It leaves out pages of slabs and of the
# stack depot: the kernel keeps them, also if one of our functions allocated them.
_FILL_RECORDS = (
    'BEGIN { RS = ""; ORS = "\\n\\n" } '
    r"/(mcopy|mfill|mcontinue|userfaultfd|pte_reader)[^ ]*\+0x/ && !/allocate_slab|stack_depot/"
)
_MIN_AGE = 6  # seconds; kmemleak does not report an object younger than 5 s (MSECS_MIN_AGE)


def pages_of_fills(lab: Lab) -> list[str]:
    """Return the page_owner records of pages that a fill or the PTE reader has allocated and that are not free.

    These include page tables, mapped pages and pages of files.  So call this when the processes have ended.
    """
    # A read that is too short for the next record fails with ENOMEM.  cat reads enough at once; awk may not.
    line = f"cat {_DEBUGFS}/page_owner | awk '{_FILL_RECORDS}'"
    done = lab.exec(["sh", "-o", "pipefail", "-c", line], deadline=900, most_output=64 << 20)
    assert (done.status, done.stderr) == (0, b"")
    return [record for record in done.text.split("\n\n") if record.strip()]


def forget_objects(lab: Lab) -> None:
    """Make kmemleak forget what it has found so far."""
    assert (
        lab.exec(
            ["sh", "-c", f"echo scan >{_DEBUGFS}/kmemleak && echo clear >{_DEBUGFS}/kmemleak"], deadline=900
        ).status
        == 0
    )


def lost_objects(lab: Lab) -> list[str]:
    """Return the kmemleak report of each object that nothing points to."""
    # kmemleak does not report an object that has changed since the last scan.
    line = f"for scan in 1 2; do sleep {_MIN_AGE}; echo scan >{_DEBUGFS}/kmemleak || exit 1; done"
    line += f"; cat {_DEBUGFS}/kmemleak"
    done = lab.exec(["sh", "-c", line], deadline=1800)
    assert (done.status, done.stderr) == (0, b"")
    return [f"unreferenced object {record}" for record in done.text.split("unreferenced object ")[1:]]
