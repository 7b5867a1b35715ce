"""The ioctls of a userfaultfd: make their arguments, describe a call as text, and read its result."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from uffdlab import uapi
from uffdlab.arguments import nearest
from uffdlab.errors import UsageError
from uffdlab.target.results import IoctlResult
from uffdlab.uapi import RegisterMode
from uffdlab.uapi.protocol.target import RunBatch

if TYPE_CHECKING:
    import enum

    from uffdlab.target.region import PageRange
    from uffdlab.uapi.protocol.target import IoctlAnswer


def known_ioctl(name: str, values: Mapping[str, int] | None = None) -> uapi.Ioctl:
    """Return the row of an ioctl; UsageError if there is none, or if it does not have these fields."""
    if name not in uapi.IOCTLS:
        meant = nearest(name, uapi.IOCTLS) or "."
        raise UsageError(f"{name!r} is no ioctl of a userfaultfd{meant} The ioctls are {', '.join(uapi.IOCTLS)}")
    ioctl = uapi.IOCTLS[name]
    for field, value in (values or {}).items():
        if field not in ioctl.fields:
            raise UsageError(f"{name} has no field {field}; it has {', '.join(ioctl.fields)}")
        if not isinstance(value, int) or not -(1 << 63) <= value < 1 << 64:
            raise UsageError(f"{field}={value!r} is no value for a field of {name}: it must be a number of 64 bits")
    return ioctl


def range_fields(ioctl: uapi.Ioctl, pages: PageRange, mode: int) -> dict[str, int]:
    """Return the fields of an ioctl whose argument is a range and, if it has one, a mode."""
    return {"start": pages.start, "len": pages.length} | ({"mode": mode} if "mode" in ioctl.fields else {})


def remaining_fields(result: IoctlResult) -> dict[str, int]:
    """Return the fields of an ioctl that continues where this one stopped."""
    sent = result.values
    advanced: dict[str, int] = {name: sent[name] + result.done for name in ("start", "dst", "src") if name in sent}
    return {**sent, **advanced, "len": sent["len"] - result.done}


def batch_request(ioctl: uapi.Ioctl, number: int, pages: PageRange, mode: int, data: bytes | None) -> RunBatch:
    """Return the request of one ioctl for each page; UsageError if `data` is larger than a page."""
    size = pages.mapping.page_size
    if data is not None and len(data) > size:
        raise UsageError(f"{len(data)} bytes do not fit into a page of {size} bytes")
    values = {"dst" if "dst" in ioctl.fields else "start": pages.start, "len": size}
    values |= {"mode": mode} if "mode" in ioctl.fields else {}
    source = data.ljust(size, b"\0") if data is not None else bytes(size) if ioctl.name == "UFFDIO_COPY" else None
    return RunBatch(number, ioctl.name, values, size, pages.count, source)


def move_fields(to: PageRange, source: PageRange, mode: int) -> dict[str, int]:
    """Return the fields of UFFDIO_MOVE; UsageError if the ranges differ in size, or `to` begins within `source`."""
    if to.length != source.length:
        raise UsageError(f"{source} of {source.length} bytes cannot be moved to {to} of {to.length} bytes")
    if source.start < to.start < source.start + source.length:
        fields = f"dict(dst={to.start:#x}, src={source.start:#x}, len={to.length})"
        raise UsageError(
            f"{to} begins within {source}: the kernel moves the pages one by one, the first one first, so it would "
            "move pages again that it has just moved. Move parts that do not overlap, the last part first. To try it "
            f"all the same: uffd.ioctl('UFFDIO_MOVE', {fields})"
        )
    return {"dst": to.start, "src": source.start, "len": to.length, "mode": mode}


def mode_bits(kind: type[enum.IntFlag], wp: bool, dontwake: bool) -> int:
    """Return the mode with these bits.  Their order differs between ioctls."""
    return (int(kind["WP"]) if wp else 0) | (int(kind["DONTWAKE"]) if dontwake else 0)


_MODES_EXAMPLE = "; each mode is an argument of its own: uffd.register(region, 'minor', 'wp')"


def register_mode(modes: tuple[str | RegisterMode, ...]) -> int:
    """Return the mode of UFFDIO_REGISTER for these names and flags; UsageError if one is unknown or none is given."""
    names = {str(flag.name).lower(): flag for flag in RegisterMode}
    total = 0
    for mode in modes:
        if isinstance(mode, str):
            if mode.lower() not in names:
                meant = nearest(mode, names) or "."
                raise UsageError(f"{mode!r} is no mode of UFFDIO_REGISTER{meant} The modes are {', '.join(names)}")
            total |= names[mode.lower()]
        elif isinstance(mode, int) and not isinstance(mode, bool):
            total |= mode
        else:
            raise UsageError(f"{mode!r} is no mode of UFFDIO_REGISTER{_MODES_EXAMPLE}")
    if not total:
        raise UsageError(f"UFFDIO_REGISTER needs a mode{_MODES_EXAMPLE}")
    return total


def call_text(ioctl: uapi.Ioctl, values: dict[str, int], where: str) -> str:
    """Return a call as text: ``UFFDIO_CONTINUE(page 3, WP)``."""
    if "api" in ioctl.fields:
        parts = [f"api {values.get('api', 0):#x}", uapi.flag_names(values.get("features", 0), uapi.Feature)]
    elif "enable" in ioctl.fields:
        parts = [f"{name} {uapi.flag_names(values.get(name, 0), uapi.Feature)}" for name in ioctl.fields]
    else:
        parts = [where or f"{values.get('start', values.get('dst', 0)):#x}+{values.get('len', 0):#x}"]
    if values.get("mode"):
        parts.append(uapi.flag_names(values["mode"], ioctl.modes))
    return f"{ioctl.name}({', '.join(parts)})"


def ioctl_result(
    ioctl: uapi.Ioctl, values: dict[str, int], answer: IoctlAnswer, where: str = "", source: bytes | None = None
) -> IoctlResult:
    """Return the result of an ioctl from the target's answer; `where` describes the range, "" to print its address."""
    output = answer.fields[ioctl.output] if ioctl.output else None
    # The kernel sets the output field to bytes or -errno.  On some paths it leaves the field unchanged, that is 0.
    requested = 0 if answer.errno else values.get("len", 0)
    return IoctlResult(
        call=call_text(ioctl, values, where),
        errno=answer.errno,
        took_ns=answer.ended_ns - answer.started_ns,
        done=requested if output is None else max(0, output),
        output=output,
        fields=answer.fields,
        name=ioctl.name,
        values=dict(values),
        source=source,
    )
