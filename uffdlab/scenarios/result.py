"""Result: the results of an experiment, as data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from uffdlab.observations.snapshot import Snapshot
    from uffdlab.target.timeline import Timeline


@dataclass(frozen=True)
class Check:
    """One check of what the kernel must do.

    Attributes
    ----------
    name : str
        What was tried; unique within a Result.
    expected, observed : str
        The expected and the observed result, in the same form.
    ok : bool
        Whether the two are equal.
    """

    name: str
    expected: str
    observed: str

    @property
    def ok(self) -> bool:
        """Whether the observed result is the expected one."""
        return self.expected == self.observed


@dataclass(frozen=True)
class Group:
    """Some neighbouring pages on which the same was done.

    Attributes
    ----------
    memory : str
        ``shmem`` or ``hugetlb``.
    pages : str
        The page numbers, ``0–31``.
    done : str
        What was done to them, ``CONTINUE|WP``.
    before, after : str
        Their state as text.
    """

    memory: str
    pages: str
    done: str
    before: str
    after: str


@dataclass
class Result:
    """The results of an experiment on one kernel.

    Attributes
    ----------
    scenario, kernel, release, witness : str
        The names of the scenario, the kernel, its release and the witness.
    checks : list of Check
        All checks.
    groups : list of Group
        The page groups, before and after.
    snapshots : dict of str to Snapshot
        By name: ``shmem before``, ``shmem after``, …
    timeline : Timeline or None
        Everything that happened.
    """

    scenario: str
    kernel: str
    release: str
    witness: str
    checks: list[Check] = field(default_factory=list)
    groups: list[Group] = field(default_factory=list)
    snapshots: dict[str, Snapshot] = field(default_factory=dict)
    timeline: Timeline | None = None

    @property
    def ok(self) -> bool:
        """Whether all checks hold."""
        return all(check.ok for check in self.checks)

    def check(self, name: str, expected: str, observed: str) -> None:
        """Add a check."""
        self.checks.append(Check(name, expected, observed))

    @property
    def failed(self) -> list[Check]:
        """The checks that do not hold."""
        return [check for check in self.checks if not check.ok]
