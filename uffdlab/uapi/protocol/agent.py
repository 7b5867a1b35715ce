"""The methods of the agent: its machine, the target process, programs, huge pages and files."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta

from uffdlab.uapi.protocol.base import AgentMethod, Answer, Count, Nanoseconds, Pid, method


@method("agent.ping")
class Ping(AgentMethod[Any], frozen=True):
    """Return `value`."""

    value: Any = None


@method("agent.clock")
class ReadClock(AgentMethod[Nanoseconds], frozen=True):
    """Return CLOCK_MONOTONIC, in ns."""


@method("agent.load")
class LoadModules(AgentMethod[None], frozen=True):
    """Import every module that the agent may need later, before the machine's state is saved."""


@method("agent.after_restore")
class AfterRestore(AgentMethod[None], frozen=True):
    """Set the clock (CLOCK_REALTIME, ns) and add entropy, after this machine was restored from a saved state."""

    entropy: bytes
    wall_ns: int


@method("agent.memory_bytes")
class MeasureMemory(AgentMethod[Count], frozen=True):
    """Return the size of the machine's memory and swap together, in bytes."""


class Hugepages(Answer, frozen=True):
    """The huge pages of one size: the number that are free or could be made, and the number that exist."""

    free: Count
    total: Count


@method("agent.reserve_hugepages")
class ReserveHugepages(AgentMethod[Hugepages], frozen=True):
    """Reserve huge pages until `free` of `page_size` bytes are free, as far as memory allows."""

    page_size: int
    free: int


@method("agent.swap_on")
class TurnSwapOn(AgentMethod[Count], frozen=True):
    """Turn swap on, on every RAM disk; return its size in bytes."""


@method("agent.sysrq")
class TriggerSysrq(AgentMethod[None], frozen=True):
    """Write a letter to /proc/sysrq-trigger; ``c`` panics."""

    how: str


class SpawnedTarget(Answer, frozen=True):
    """The process id of a new target."""

    pid: Pid


@method("agent.spawn")
class SpawnTarget(AgentMethod[SpawnedTarget], frozen=True):
    """Start a new target and end the old one.

    `nonce`: random bytes that identify it, stored in its beacon page.  `base`: the address of its first region.
    """

    nonce: bytes
    base: int


@method("agent.kill_target")
class KillTarget(AgentMethod[None], frozen=True):
    """End the target."""


@method("agent.late")
class EndLateTarget(AgentMethod[None], frozen=True):
    """End the target with this nonce; it has not answered these methods on its direct connection by their deadline."""

    nonce: bytes
    methods: list[str]


@method("agent.exists")
class FilesExist(AgentMethod[list[bool]], frozen=True):
    """Return for each path whether it exists."""

    paths: list[str]

    def check(self, answer: list[bool]) -> None:
        """See :meth:`Method.check`: one answer for each path."""
        if len(answer) != len(self.paths):
            raise ValueError(f"it has {len(answer)} answers, expected {len(self.paths)}")


@method("agent.put")
class PutFile(AgentMethod[None], frozen=True):
    """Write a file, or append to it; create its folder if needed."""

    path: str
    data: bytes
    append: bool
    executable: bool


@method("agent.exec_folder")
class MakeProgramFolder(AgentMethod[Annotated[str, Meta(min_length=1, max_length=4096)]], frozen=True):
    """Make a folder for a program and the files pushed with it; return its path."""


@method("agent.exec_discard")
class DiscardProgramFolder(AgentMethod[None], frozen=True):
    """Remove a program's folder with its contents."""

    folder: str


class ProgramEnd(Answer, frozen=True):
    """How a program ended: its exit status as a shell reports it, and the signal that killed it, 0 for none."""

    status: Annotated[int, Meta(ge=0, le=255)]
    signal: Annotated[int, Meta(ge=0, le=127)]


@method("agent.exec")
class RunProgram(AgentMethod[ProgramEnd], frozen=True):
    """Run a program and return when it has ended; its output arrives as :class:`ProgramOutput`.

    `key` identifies it.  `seconds`: the deadline, after which it is killed.  `most`: how many bytes it may write.
    `environment`: variables in addition to the agent's own.  `stdin`: whether the host sends input when
    :class:`ProgramInputWanted` asks for it; else its stdin is /dev/null.
    """

    key: int
    argv: list[str]
    folder: str
    seconds: float
    most: int
    environment: dict[str, str]
    stdin: bool = False


@method("agent.exec_input")
class SendProgramInput(AgentMethod[None], frozen=True):
    """Send the bytes that :class:`ProgramInputWanted` asked for; no bytes end the program's stdin."""

    key: int
    data: bytes


@method("agent.exec_kill")
class KillProgram(AgentMethod[None], frozen=True):
    """Kill the program with this key if it is running."""

    key: int
