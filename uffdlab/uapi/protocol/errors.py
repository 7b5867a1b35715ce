"""The errors that the agent returns in place of an answer."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from uffdlab.uapi.protocol.base import Answer, Text


class ErrorAnswer(Answer, frozen=True):
    """An error in place of an answer.  A `kind` not in :data:`ERROR_KINDS` is the name of a Python exception."""

    kind: Annotated[str, Meta(min_length=1, max_length=256)]
    message: Text
    data: dict[Text, int | Text]


ERROR_KINDS = {
    "usage": "the request is invalid, or not possible on this machine",
    "closed": "the userfaultfd is closed",
    "unknown-method": "the agent does not know the method: host and agent have different versions",
    "target-lost": "the target has ended",
    "fault-unresolved": "the target did not answer by the deadline, and was killed",
    "map-failed": "the kernel refused a mapping",
    "unmapped": "not all of these pages are mapped",
    "no-userfaultfd": "every way to open a userfaultfd failed",
    "no-witness": "this kernel does not offer the witness",
    "scan-failed": "PAGEMAP_SCAN failed",
    "reader-failed": "the PTE reader failed",
    "no-program": "the program does not exist",
    "not-executable": "the program cannot be executed",
    "program-late": "the program had not ended by its deadline",
    "program-output": "the program wrote more than allowed",
    "program-killed": "the program was killed on request",
}
