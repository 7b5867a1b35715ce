"""What a kernel with config/debug.config reports about memory that is never freed."""

from __future__ import annotations

from uffdlab.lab import Lab

_DEBUGFS = "/sys/kernel/debug"
# Records of page_owner with one of our functions in the stack.  Pages that the kernel keeps, of the slabs and of its
# own records of stacks, may have been allocated there too, and are not ours.
_OF_FILLS = (
    'BEGIN { RS = ""; ORS = "\\n\\n" } '
    r"/(mcopy|mfill|mcontinue|userfaultfd|pte_reader)[^ ]*\+0x/ && !/allocate_slab|stack_depot/"
)
_OLD_ENOUGH = 6  # seconds; kmemleak tells of no object that is younger than 5 (MSECS_MIN_AGE)


def pages_of_fills(lab: Lab) -> list[str]:
    """Return the records of page_owner of the pages that a fill or the PTE reader has allocated and that are not free.

    Page tables, and the pages that are mapped or in a file, are among them, so ask when their processes have ended.
    """
    # A read that the next record is too long for is ENOMEM; cat asks for enough, awk for what its buffer has left.
    line = f"cat {_DEBUGFS}/page_owner | awk '{_OF_FILLS}'"
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
    """Return what kmemleak tells of each object that nothing points to."""
    # kmemleak does not report an object that has changed since the last scan.
    line = f"for each in 1 2; do sleep {_OLD_ENOUGH}; echo scan >{_DEBUGFS}/kmemleak || exit 1; done"
    line += f"; cat {_DEBUGFS}/kmemleak"
    done = lab.exec(["sh", "-c", line], deadline=1800)
    assert (done.status, done.stderr) == (0, b"")
    return [f"unreferenced object {record}" for record in done.text.split("unreferenced object ")[1:]]
