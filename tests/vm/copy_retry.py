"""The required result of UFFDIO_COPY if its destination changes while it waits for its source (copy-retry/)."""

from __future__ import annotations

import errno
import itertools
import subprocess
from collections.abc import Collection
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from uffdlab.lab import Lab

SOURCES = sorted(Path(__file__).with_name("copy-retry").glob("*.c"))
HALF = 512  # pages of 4 KiB; the destination has two halves, with hugetlb each is one huge page
LENGTH = 2 * HALF * 4096


class Difference(Enum):
    """A known difference between a kernel and the required result."""

    FILLS_ANOTHER = "fills another mapping than the first one; Linux 7.1 compares them (292411fda25b, 85668fda932a)"
    LOSES_THE_PAGE = (
        "when it continues in a hugetlb mapping, starts again at the beginning of the range, reports no progress, "
        "and never frees the page that it had copied to"
    )
    EINVAL_FIRST = "checks whether the range is registered for WP before it compares: no fault, another errno"
    HUGE_FILLS_ANOTHER = (
        "the retry for hugetlb, in 7.3 too, fills any other hugetlb mapping of the same page size, "
        "and makes uffd-wp entries where the new mapping is not registered for WP"
    )
    HUGE_PAST_THE_END = "fills a private hugetlb mapping past the end of its file, where a touch is SIGBUS; 7.3 too"
    RESERVES_ONCE = "does not reserve a huge page again for a private mapping that drops one; 6.12 does"


#: The differences of the patch series.
SERIES = frozenset({Difference.HUGE_PAST_THE_END, Difference.RESERVES_ONCE})


@dataclass(frozen=True)
class Kind:
    """A kind of memory; `file`: whether it is of a file that the program has open."""

    hugetlb: bool
    shared: bool
    file: bool


KINDS = {
    "anon": Kind(hugetlb=False, shared=False, file=False),
    "thp": Kind(hugetlb=False, shared=False, file=False),
    "anon-shared": Kind(hugetlb=False, shared=True, file=False),
    "shmem": Kind(hugetlb=False, shared=True, file=True),
    "shmem-private": Kind(hugetlb=False, shared=False, file=True),
    "hugetlb-anon": Kind(hugetlb=True, shared=False, file=False),
    "hugetlb-anon-shared": Kind(hugetlb=True, shared=True, file=False),
    "hugetlb": Kind(hugetlb=True, shared=True, file=True),
    "hugetlb-private": Kind(hugetlb=True, shared=False, file=True),
}
FILE_CHANGES = {"mapped-again", "other-offset", "empty", "half", "punched", "filled-elsewhere"}
_NOT_REGISTERED = {"gone", "half-gone", "moved", "unregistered", "half-read-only"}
_WITHOUT_WP = {"without-wp", "only-minor"}
_DROP_THE_FIRST = {"dropped", "changing", "punched", "empty"}
_OTHER_MODES = {"without-wp", "only-minor", "only-wp"}


@dataclass(frozen=True)
class Case:
    """One combination of memory, change and mode.

    Attributes
    ----------
    start, change : str
        The first kind of memory, and how it changes: ``to-KIND`` replaces it by another mapping, ``to-full-KIND`` by
        one with all its pages.
    copied : bool
        Whether the first half is copied before the copy waits for the source.
    wp : bool
        UFFDIO_COPY_MODE_WP.
    """

    start: str
    change: str
    copied: bool
    wp: bool

    @property
    def replaced(self) -> str:
        """The kind of the new mapping, full or not; "" if the mapping is not replaced."""
        return self.change.removeprefix("to-").removeprefix("full-") if self.change.startswith("to-") else ""

    @property
    def full(self) -> bool:
        """Whether the new mapping has all its pages."""
        return self.change.startswith("to-full-")

    @property
    def kind(self) -> Kind:
        """The kind of memory at the destination when the copy continues."""
        return KINDS[self.replaced or self.start]

    @property
    def possible(self) -> bool:
        """Whether this change is possible for this kind of memory."""
        start = KINDS[self.start]
        is_anon = not start.hugetlb and not start.shared and not start.file
        return not (self.change in FILE_CHANGES and not start.file) and not (self.change == "only-minor" and is_anon)


@dataclass(frozen=True)
class Result:
    """The observed result; copy-retry/main.c explains the letters, here one for each half."""

    error: int
    result: int
    pages: str
    content: str
    write: str
    blocks: int
    old_blocks: int
    huge: int
    reserved: int
    leaks_pages: bool = False
    pool_is_restored: bool = True
    same_in_each_round: bool = True


def read(line: str) -> tuple[Case, Result | None]:
    """Parse a line of copy_retry; return its case and result, or None if this kernel cannot make the change."""
    fields = dict(field.split("=", 1) for field in line.split())
    case = Case(fields["start"], fields["change"], fields["held"] == str(HALF), fields["mode"] == "2")
    if "cannot" in fields:
        return case, None
    left = (fields["left_used"], fields["left_reserved"], fields["left_surplus"])
    return case, Result(
        error=int(fields["errno"]),
        result=int(fields["result"]),
        pages=_halves(fields["pages"]),
        content=_halves(fields["content"]),
        write=fields["write"],
        blocks=int(fields["blocks"]),
        old_blocks=int(fields["old_blocks"]),
        huge=int(fields["huge"]),
        reserved=int(fields["reserved"]),
        # More than half of the rounds: other activity may take or free a page occasionally.
        leaks_pages=abs(int(fields["lost"])) > int(fields["rounds"]) / 2,
        pool_is_restored=left == ("0", "0", "0"),
        same_in_each_round=fields["same"] == "1",
    )


def _halves(runs: str) -> str:
    # "s1024" is "ss", "p512,-512" is "p-".  Other text is returned unchanged and equals no expected value.
    parts = runs.split(",")
    if len(parts) == 1 and parts[0][1:] == str(2 * HALF):
        return parts[0][0] * 2
    if len(parts) == 2 and all(part[1:] == str(HALF) for part in parts):
        return parts[0][0] + parts[1][0]
    return runs


def compile_program(folder: Path) -> Path:
    """Compile copy-retry/ into a folder; return the program."""
    program = folder / "copy_retry"
    flags = ["-O2", "-static", "-pthread", "-Wall", "-Wextra", "-Werror"]
    subprocess.run(["cc", *flags, *SOURCES, "-o", program], check=True)
    return program


def run_cases(
    lab: Lab, program: Path, starts: Collection[str], changes: Collection[str], held: int, mode: int, rounds: int = 3
) -> dict[Case, Result]:
    """Run each change on each kind of memory, in a guest with 16 huge pages; return the results."""
    lists = [",".join(names) for names in (starts, changes)]
    done = lab.exec([program.name, str(rounds), *lists, str(held), str(mode)], push=[program], deadline=1500)
    assert (done.status, done.stderr) == (0, b""), done.text[-500:]
    found = dict(read(line) for line in done.text.splitlines())
    assert set(found) == {Case(*pair, held > 0, mode > 0) for pair in itertools.product(starts, changes)}
    assert [case for case, result in found.items() if (result is not None) != case.possible] == []
    return {case: result for case, result in found.items() if result is not None}


def unexpected(
    found: dict[Case, Result], differences: frozenset[Difference] = frozenset(), without: Collection[str] = ()
) -> dict[str, str]:
    """Return as text what differs from :func:`expected`; `without` names attributes of Result to leave out."""
    return {
        f"{case.start} {case.change}, copied={case.copied}, wp={case.wp}: {name}": f"{value}, not {wanted}"
        for case, result in found.items()
        for name, value, wanted in compared(result, expected(case, differences))
        if value != wanted and name not in without
    }


def compared(result: Result, wanted: Result) -> list[tuple[str, object, object]]:
    """Return (attribute, value, wanted value) for each attribute of two results."""
    return [(name, getattr(result, name), getattr(wanted, name)) for name in Result.__dataclass_fields__]


def expected(case: Case, differences: frozenset[Difference] = frozenset()) -> Result:
    """Return the required result on a kernel with these differences."""
    pages, content = _before(case)
    error = _error(case, differences)
    partly = case.change == "half" and not case.copied and error == errno.EFAULT  # the first half still exists
    becomes_hugetlb = KINDS[case.start].hugetlb < (case.kind.hugetlb or case.change == "giant")
    leaks_pages = becomes_hugetlb and Difference.LOSES_THE_PAGE in differences
    first = int(case.copied and not leaks_pages)
    filled = [number for number in (0, 1) if number >= first and (not error or (partly and number == 0))]
    for number in filled:
        pages = pages[:number] + ("P" if case.wp else "p") + pages[number + 1 :]
        content = content[:number] + "s" + content[number + 1 :]
    done = (first + len(filled)) * HALF * 4096
    huge, reserved = _pool(case, content, filled)
    private_huge = case.kind.hugetlb and not case.kind.shared
    if Difference.RESERVES_ONCE in differences and case.copied and private_huge and case.change in _DROP_THE_FIRST:
        reserved -= 1
    old = _old_blocks(case, filled)
    return Result(
        error=(errno.EAGAIN if done else error) if error else 0,
        result=done or -error,
        pages=pages,
        content=content,
        write=_write(case, pages),
        blocks=_blocks(case, content) if case.replaced else -1 if case.change == "giant" else old,
        old_blocks=old,
        huge=huge,
        reserved=reserved,
        leaks_pages=leaks_pages,
    )


def _error(case: Case, differences: frozenset[Difference]) -> int:
    # Returns the errno for the page that the copy waited for, 0 for none.
    start = KINDS[case.start]
    if case.change in _NOT_REGISTERED:
        return errno.ENOENT
    if _changed(case):
        if start.hugetlb:
            found = _error_in_replaced_hugetlb(case) if Difference.HUGE_FILLS_ANOTHER in differences else errno.EAGAIN
        elif (
            case.wp and case.change in _WITHOUT_WP and differences & {Difference.FILLS_ANOTHER, Difference.EINVAL_FIRST}
        ):
            found = errno.EINVAL
        else:
            found = (
                errno.EAGAIN if Difference.FILLS_ANOTHER not in differences else errno.EINVAL * (case.change == "giant")
            )
        if found:
            return found
    if case.change == "changing":
        return errno.EAGAIN
    if case.change in {"empty", "half"}:
        ignored = start.hugetlb and not start.shared and Difference.HUGE_PAST_THE_END in differences
        return 0 if ignored else errno.EFAULT
    if case.full or case.change == "copied-already" or (case.change == "filled-elsewhere" and start.shared):
        return errno.EEXIST
    return 0


def _changed(case: Case) -> bool:
    # Whether the kernel can see a change: in the kind, the file, the offset or the registered modes.  To the kernel all
    # anonymous memory is the same.
    if case.replaced:
        return not KINDS[case.start] == case.kind == KINDS["anon"]
    return case.change in {"giant", "other-offset", *_OTHER_MODES}


def _error_in_replaced_hugetlb(case: Case) -> int:
    return errno.EINVAL if case.change == "giant" else 0 if case.kind.hugetlb else errno.ENOENT


def _before(case: Case) -> tuple[str, str]:
    # Entries and content of the two halves when the copy continues.
    if case.replaced:
        return ("pp", "ff") if case.full else ("--", "zz")
    kind = case.kind
    pages, content = ("P-" if case.wp else "p-", "sz") if case.copied else ("--", "zz")
    file_content = content if kind.shared else "zz"
    return {
        "gone": ("--", "tt"),
        "moved": ("--", "tt"),
        "giant": ("--", "tt"),
        "empty": ("--", "tt"),
        "half-gone": (pages, content[0] + "t"),
        "half": (pages, content[0] + "t"),
        "mapped-again": ("--", file_content),
        "other-offset": ("--", "zz"),
        "dropped": ("--", file_content),
        "changing": ("--", file_content),
        "punched": ("--", "zz") if kind.shared or kind.hugetlb else (pages, content),
        "filled-elsewhere": (pages, "sf" if case.copied and not kind.shared else "ff"),
        "copied-already": ((pages[0] if case.copied else "p") + "p", ("s" if case.copied else "f") + "f"),
    }.get(case.change, (pages, content))


def _write(case: Case, pages: str) -> str:
    def write_to(page: str) -> str:
        if page == "P":
            return "n" if case.change in _WITHOUT_WP else "r"
        return "r" if case.change in {"read-only", "no-access"} else "w"

    found = {write_to(page) for page in pages if page != "-"}
    return found.pop() if len(found) == 1 else "?" if found else "-"


def _blocks(case: Case, content: str) -> int:
    # Blocks of the file of the new mapping.
    kind = case.kind
    if not kind.file:
        return -1
    if kind.shared:
        return HALF * sum(half in "sf" for half in content)
    return 2 * HALF if case.full and not kind.hugetlb else 0


def _old_blocks(case: Case, filled: list[int]) -> int:
    # Blocks of the file of the first mapping, which the program keeps open.
    kind = KINDS[case.start]
    if not kind.file:
        return -1
    if case.change == "filled-elsewhere":
        return 2 * HALF
    if not kind.shared or case.change == "empty":
        return 0
    if case.change == "copied-already":
        return 2 * HALF
    first_half = case.copied and case.change != "punched"
    return HALF * (first_half + (0 if case.replaced else len(filled)))


def _pool(case: Case, content: str, filled: list[int]) -> tuple[int, int]:
    # Huge pages in use and reserved.
    used, reserved = _pool_of_the_first(case, content, filled)
    if case.replaced and case.kind.hugetlb:
        new = sum(half in "sf" for half in content)
        return used + new, reserved + 2 - new
    return used, reserved


def _pool_of_the_first(case: Case, content: str, filled: list[int]) -> tuple[int, int]:
    kind, copied = KINDS[case.start], int(case.copied)
    used = sum(half in "sf" for half in content)
    own = copied + len(filled)
    by_change = {
        "moved": (copied, 2 - copied),
        "half-gone": (copied, (2 if kind.shared else 1) - copied),
        # What was reserved for a shared file stays reserved.
        "other-offset": (own, 3 - own) if kind.shared else (len(filled), 2 - len(filled)),
    }
    if kind.shared:
        # What was removed from the file is no longer reserved.
        by_change |= {"empty": (0, 0), "half": (used, 1 - used), "punched": (used, 0)}
    else:
        by_change |= {"filled-elsewhere": (2 + own, 2 - own)}
    if not kind.hugetlb:
        return 0, 0
    if case.replaced or case.change in {"gone", "giant"}:
        return (copied, 2 - copied) if kind.file and kind.shared else (0, 0)
    return by_change.get(case.change, (used, 2 - used))
