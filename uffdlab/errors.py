"""The errors of this package, as classes with data.

Every message says what was tried, what came back and what to do. Catch :class:`UffdlabError` to catch all of them.
Where nobody catches one, :mod:`uffdlab.tracebacks` shows it without the lines of this package.
"""

from __future__ import annotations

import errno as _errno

from uffdlab import tracebacks

tracebacks.install()


def errno_name(error: int) -> str:
    """Return the name of an errno, ``EINVAL``; its number if this system has no name for it, and ``ok`` for 0."""
    return _errno.errorcode.get(error, str(error)) if error else "ok"


class UffdlabError(Exception):
    """The base class of every error that this package raises on purpose."""

    def _render_traceback_(self) -> list[str]:
        # IPython and Jupyter call this in place of their own way to show an error.
        return tracebacks.for_ipython(self)


class UsageError(UffdlabError, ValueError):
    """An argument has no meaning (pages=0, an unaligned range, an unknown name)."""


class WrongArguments(UsageError, TypeError):
    """A call has an argument of the wrong type, one that it does not know, or lacks one."""


class WrongIndex(UsageError, IndexError):
    """There is no such page."""


class UnknownName(UsageError, AttributeError):
    """The package has no such name."""


class LabClosed(UffdlabError):
    """The lab or a part of it was closed, so it cannot be used any more."""


class HostUnsupported(UffdlabError):
    """The host cannot do what was asked (not x86-64 Linux, no QEMU, no apt, no disk space).

    Attributes
    ----------
    missing : str
        What is missing, for instance ``disk space``.
    """

    def __init__(self, message: str, *, missing: str = "") -> None:
        super().__init__(message)
        self.missing = missing


# --- kernels


class KernelError(UffdlabError):
    """A kernel under test could not be found, fetched or built.

    Attributes
    ----------
    kernel : str
        The kernel's name.
    """

    def __init__(self, message: str, *, kernel: str = "") -> None:
        super().__init__(message)
        self.kernel = kernel


class UnknownKernel(KernelError, LookupError):
    """No kernel has this name.

    Attributes
    ----------
    near : tuple of str
        Known names that are similar.
    """

    def __init__(self, message: str, *, kernel: str = "", near: tuple[str, ...] = ()) -> None:
        super().__init__(message, kernel=kernel)
        self.near = near


class SourceError(KernelError):
    """A source or package could not be fetched, or its signature or checksum did not verify."""


class PatchError(KernelError):
    """A patch does not apply.

    Attributes
    ----------
    patch : str
        Path of the patch file.
    output : str
        The output of patch(1).
    """

    def __init__(self, message: str, *, kernel: str = "", patch: str = "", output: str = "") -> None:
        super().__init__(message, kernel=kernel)
        self.patch = patch
        self.output = output


class BuildError(KernelError):
    """The kernel did not build.

    Attributes
    ----------
    log : str
        Path of the complete build log.
    output : str
        The error messages of the compiler or of make.
    """

    def __init__(self, message: str, *, kernel: str = "", log: str = "", output: str = "") -> None:
        super().__init__(message, kernel=kernel)
        self.log = log
        self.output = output


# --- machines


class MachineError(UffdlabError):
    """The machine under test failed.

    Attributes
    ----------
    console : str
        The last lines of the guest's console; empty if there were none.
    """

    def __init__(self, message: str, *, console: str = "") -> None:
        tail = f"\n--- the console's last lines ---\n{console}" if console else ""
        super().__init__(message + tail)
        self.console = console


class MachineLost(MachineError):
    """The machine ended or its connection broke while it was in use."""


class GuestPanic(MachineLost):
    """The guest's kernel panicked or oopsed."""


class MachineTimeout(MachineError):
    """The machine did not answer before the deadline."""


class ProtocolError(MachineError):
    """What came from the machine was not a well-formed message."""


class AgentError(UffdlabError):
    """The agent refused or failed a request.

    Attributes
    ----------
    kind : str
        The agent's name for the error.
    data : dict
        Values that the agent sent with the error.
    """

    def __init__(self, message: str, *, kind: str = "", data: dict[str, object] | None = None) -> None:
        super().__init__(message)
        self.kind = kind
        self.data = data or {}


class ProgramError(AgentError):
    """A program could not be started in the guest, or did not end by itself.

    `kind` is ``no-program``, ``not-executable``, ``program-late`` (it missed its deadline), ``program-output`` (it
    wrote too much) or ``program-killed``.

    Attributes
    ----------
    stdout, stderr : bytes
        The program's output until the error.
    """

    stdout = b""
    stderr = b""


# --- the target


class TargetLost(AgentError):
    """The target process died, and with it its mappings and userfaultfds. `lab.restart_target()` starts a new one."""


class FaultUnresolved(AgentError):
    """A touch waited for a page fault that nobody resolved before the deadline.

    Attributes
    ----------
    address : int
        The address that was touched.
    """

    def __init__(
        self, message: str, *, address: int = 0, kind: str = "", data: dict[str, object] | None = None
    ) -> None:
        super().__init__(message, kind=kind, data=data)
        self.address = address


class TouchFailed(AgentError):
    """A touch failed: a signal (SIGBUS, SIGSEGV) or an errno ended it, it was withdrawn, or its child ended.

    Attributes
    ----------
    address : int
        The address that was touched.
    """

    def __init__(
        self, message: str, *, address: int = 0, kind: str = "", data: dict[str, object] | None = None
    ) -> None:
        super().__init__(message, kind=kind, data=data)
        self.address = address


class IoctlError(UffdlabError, OSError):
    """An ioctl failed with an errno.

    ``str()`` returns the call, the name of the errno and the likely reason on this kernel. The number is in ``errno``,
    as in every :class:`OSError`.

    Attributes
    ----------
    call : str
        The call with its arguments, as text: ``UFFDIO_CONTINUE(page 3, WP)``.
    reason : str
        The likely reason.
    done : int
        Bytes that were done before it failed, 0 if none.
    output : int
        The ioctl's output field as the kernel left it.
    """

    def __init__(self, call: str, errno: int, reason: str, *, done: int = 0, output: int = 0) -> None:
        OSError.__init__(self, errno, f"{call} → {errno_name(errno)}: {reason}")
        self.call = call
        self.reason = reason
        self.done = done
        self.output = output

    def __str__(self) -> str:
        return str(self.strerror)


# --- witnesses


class WitnessError(UffdlabError):
    """A witness cannot read the entries, or what it read does not belong to the pages in question.

    Attributes
    ----------
    witness : str
        Its name, one of :data:`uffdlab.witnesses.selection.NAMES`.
    """

    def __init__(self, message: str, *, witness: str = "") -> None:
        super().__init__(message)
        self.witness = witness


class NoMessage(UffdlabError, TimeoutError):
    """No message came from the userfaultfd before the deadline."""
