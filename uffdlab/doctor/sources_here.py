"""Where kernels come from: Debian's archive through apt, and a compiler."""

from __future__ import annotations

from uffdlab.doctor.line import Line, State
from uffdlab.errors import HostUnsupported
from uffdlab.kernels import Supply, apt, host_checks
from uffdlab.processes import system_packages

_ELSEWHERE = "uffdlab kernel import FILE takes kernels from another machine"


def archive(name: str) -> Line:
    """Check apt, the mirror and the keys; without them a host needs a kernel that is there."""
    missing = host_checks.missing_tools(host_checks.APT_TOOLS)
    if missing:
        return _without(
            name, f"missing {', '.join(missing)}", f"{system_packages.how_to_install(*missing)}; {_ELSEWHERE}"
        )
    try:
        keys = apt.keyring()
        mirrors = apt.mirrors_of_this_machine()
    except HostUnsupported as error:
        found, _, todo = str(error).partition(": ")
        return _without(name, found, f"{todo}; {_ELSEWHERE}")
    return Line(name, State.OK, f"{mirrors.main}{f', {mirrors.security}' if mirrors.security else ''}, {keys}")


def build_tools(name: str) -> Line:
    """Check the tools that compile a kernel; Debian's own kernels need none."""
    missing = host_checks.missing_build_tools()
    if missing:
        return Line(
            name,
            State.OPTIONAL,
            f"missing {', '.join(missing)}: kernels of the names 6.1-… and your own cannot be built here",
            system_packages.how_to_install(*missing),
        )
    return Line(name, State.OK, host_checks.toolchain())


def _without(name: str, found: str, todo: str) -> Line:
    here = any(row.kernel for row in Supply().available())
    if here:
        return Line(name, State.OPTIONAL, f"{found}: no other kernels than those that are here", todo)
    return Line(name, State.MISSING, f"{found}: no kernel is here, and none can be fetched", todo)
