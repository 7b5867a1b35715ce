"""Check the arguments of public calls, so that a wrong one is an error in plain text, raised before anything is done.

Python's own TypeError names a function of ours; and a wrong type that gets past the call fails far from its cause.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Mapping
from types import CodeType, FunctionType
from typing import Any, NamedTuple, TypeVar

from uffdlab.errors import UnknownName, UsageError, WrongArguments

_Class = TypeVar("_Class", bound=type)
_LONGEST_WAIT = 1e9  # seconds, 31 years; Python's locks take no infinite time


class _Kind(NamedTuple):
    # What an annotation accepts: these types, and objects that have this attribute.
    text: str
    types: tuple[type, ...] = ()
    attribute: str = ""


_KINDS = {
    "int": _Kind("an integer", (int,), "__index__"),
    "float": _Kind("a number", (int, float), "__float__"),
    "str": _Kind("text", (str,)),
    "bytes": _Kind("bytes", (bytes, bytearray, memoryview)),
    "bool": _Kind("True or False", (bool,), "__bool__"),
    "None": _Kind("None", (type(None),)),
    "os.PathLike[str]": _Kind("a path", (), "__fspath__"),
    "dict[str, int]": _Kind("a dict of numbers by name", (Mapping,)),
    "Feature": _Kind("flags of uffdlab.uapi.Feature", (int,)),
    "Region": _Kind("a region, as lab.map() returns it", (), "unmap"),
    "PageRange": _Kind("one page of a region, such as region[3]", (), "mapping"),
    "IoctlResult": _Kind("the result of an ioctl", (), "values"),
    "Method[_Answer]": _Kind("a request of uffdlab.uapi.protocol", (), "method"),
    "Machine": _Kind("a machine", (), "hello"),
    "ForkedProcess": _Kind("a child, as lab.fork() returns it", (), "pid"),
    "AtAddress": _Kind("one page of a region, such as region[3]", (), "start"),
}
_CALLABLE = _Kind("a function", (), "__call__")


_TYPES = {str: "text", type(None): "None"}


class _Check(NamedTuple):
    place: int  # by position; -1 for an argument that is given by name alone
    name: str
    kinds: tuple[_Kind, ...]

    def accepts(self, value: object) -> bool:
        return any(
            isinstance(value, kind.types) or (kind.attribute and hasattr(value, kind.attribute)) for kind in self.kinds
        )

    def expected(self) -> str:
        return " or ".join(kind.text for kind in self.kinds if kind is not _KINDS["None"])


def checked(of: str, /, **examples: str) -> Callable[[_Class], _Class]:
    """Return a class decorator that checks the arguments of every public method and of ``__init__``.

    A public name that such an object does not have is an error in plain text, too.

    The annotations say what they may be.  Those that are not in the table here are not checked: what takes a range of
    pages checks it itself.

    Parameters
    ----------
    of : str
        What such an object is called in an error: ``lab`` for ``lab.map``.
    **examples : str
        For a method by its name: a call that is right, for its errors.
    """

    def decorate(decorated: _Class) -> _Class:
        for name, value in list(vars(decorated).items()):
            if name.startswith("_") and name != "__init__":
                continue
            call = decorated.__name__ if name == "__init__" else f"{of}.{name}"
            if isinstance(value, FunctionType):
                setattr(decorated, name, _wrapped(value, call, examples.get(name, ""), method=True))
            elif isinstance(value, staticmethod):
                plain = _wrapped(value.__func__, call, examples.get(name, ""), method=False)
                setattr(decorated, name, staticmethod(plain))
        decorated.__getattr__ = _missing(of)  # type: ignore[attr-defined]
        return decorated

    return decorate


def _missing(of: str) -> Callable[[object, str], object]:
    def missing(self: object, name: str) -> object:
        # Many programs ask for private names, and expect that they are not there.  A name that the class has: its
        # property has raised an AttributeError, which is raised again.
        if name.startswith("_") or hasattr(type(self), name):
            return object.__getattribute__(self, name)
        raise unknown_name(name, [each for each in dir(self) if not each.startswith("_")], of)

    return missing


_Function = TypeVar("_Function", bound=Callable[..., Any])


def checked_function(call: str, example: str = "") -> Callable[[_Function], _Function]:
    """Return a decorator that checks the arguments of a function; `call` is what errors call it."""

    def decorate(function: _Function) -> _Function:
        wrapped: Any = _wrapped(function, call, example, method=False)
        return wrapped  # type: ignore[no-any-return]

    return decorate


def seconds_to_wait(seconds: float) -> float:
    """Return a time that every wait of Python takes: an infinite one is cut to 31 years.

    Raises
    ------
    UsageError
        It is NaN.
    """
    if math.isnan(seconds):
        raise UsageError("nan is no time to wait; give seconds, or math.inf for a wait without an end")
    return min(_LONGEST_WAIT, seconds)


def must_be(value: object, wanted: type, call: str, advice: str) -> None:
    """Raise WrongArguments unless `value` is of the type `wanted`; `advice` says how to get one."""
    if not isinstance(value, wanted):
        raise WrongArguments(f"{call} takes a {wanted.__name__}, not {value!r}; {advice}")


def unknown_name(name: str, known: Iterable[str], of: str = "uffdlab") -> UnknownName:
    """Return the error for a name that this package, or an object that is called `of`, does not have."""
    error = UnknownName(f"{of} has no {name}{nearest(name, known, 0.65) or f'; dir({of}) lists what it has'}")
    error.name, error.obj = "", None  # else Python adds a guess of its own
    return error


def nearest(name: str, known: Iterable[str], least: float = 0.5) -> str:
    """Return ``; did you mean NAME?`` with the known name that is most like `name`; empty if none is like it.

    `least` is how much of it must be the same, from 0 to 1.
    """
    import difflib  # noqa: PLC0415 - for errors alone

    near = difflib.get_close_matches(name, list(known), 1, least)
    return f"; did you mean {near[0]}?" if near else ""


def _wrapped(function: Callable[..., Any], call: str, example: str, *, method: bool) -> Callable[..., Any]:
    plain: Any = getattr(function, "__wrapped__", function)  # a context manager is a function around one
    checks: tuple[_Check, ...] | None = None  # made at the first call: a script uses few of the methods that it imports

    @functools.wraps(function)
    def checking(*arguments: Any, **keywords: Any) -> Any:
        nonlocal checks
        if checks is None:
            checks = _checks(plain.__code__, plain.__annotations__)
        for check in checks:
            if 0 <= check.place < len(arguments):
                value = arguments[check.place]
            elif check.name in keywords:
                value = keywords[check.name]
            else:
                continue
            if not check.accepts(value):
                raise WrongArguments(_wrong_type(call, check, value) + _such_as(example))
        try:
            return function(*arguments, **keywords)
        except TypeError as error:
            trace = error.__traceback__
            if trace is None or trace.tb_next is not None:
                raise  # from within: the call itself was right
            raise WrongArguments(_wrong_call(call, plain, arguments, keywords, method) + _such_as(example)) from None

    return checking


def _checks(code: CodeType, annotations: dict[str, Any]) -> tuple[_Check, ...]:
    positional = code.co_argcount
    names = code.co_varnames[: positional + code.co_kwonlyargcount]
    found = []
    for index, name in enumerate(names):
        annotation = str(annotations.get(name, ""))
        if annotation.startswith("Callable["):
            kinds = [_CALLABLE, *([_KINDS["None"]] if annotation.endswith(" | None") else [])]
        elif all(part in _KINDS for part in annotation.split(" | ")):
            kinds = [_KINDS[part] for part in annotation.split(" | ")]
        else:
            continue
        found.append(_Check(index if index < positional else -1, name, tuple(kinds)))
    return tuple(found)


def _wrong_type(call: str, check: _Check, value: object) -> str:
    shown = repr(value)
    text = f"{call}({check.name}={shown if len(shown) < 60 else f'{shown[:57]}…'}): {check.name} is {check.expected()}"
    if isinstance(value, str):
        if value.lstrip("-").isdecimal():
            return f"{text}, not text; without quotes: {value}"
        if any("bytes" in kind.text for kind in check.kinds):
            return f"{text}, not text; with a b before the quotes: b{shown}"
    return f"{text}, not {_TYPES.get(type(value), type(value).__name__)}"


def _wrong_call(call: str, function: Any, arguments: Any, keywords: dict[str, Any], method: bool) -> str:
    code: CodeType = function.__code__
    first = int(method)
    by_position = code.co_varnames[first : code.co_argcount]
    by_name = code.co_varnames[code.co_argcount : code.co_argcount + code.co_kwonlyargcount]
    known = (*by_position, *by_name)
    # CO_VARARGS: the name of *arguments comes after all others.
    many = [f"*{code.co_varnames[code.co_argcount + code.co_kwonlyargcount]}"] if code.co_flags & 0x04 else []
    takes = f"It takes {', '.join([*by_position, *many, *by_name]) or 'no arguments'}"
    for name in keywords:
        if name not in known:
            return f"{call}() has no argument {name}{nearest(name, known)} {takes}"
    if len(arguments) - first > len(by_position):
        names = f"; by name alone: {', '.join(f'{name}=…' for name in by_name)}" if by_name else ""
        most = (
            f"at most {len(by_position)} by position ({', '.join(by_position)})" if by_position else "none by position"
        )
        return f"{call}() got {len(arguments) - first} arguments; it takes {most}{names}"
    needed = by_position[: len(by_position) - len(function.__defaults__ or ())][len(arguments) - first :]
    missing = [name for name in needed if name not in keywords]
    missing += [name for name in by_name if name not in (function.__kwdefaults__ or {}) and name not in keywords]
    if missing:
        return f"{call}() needs {' and '.join(missing)}. {takes}"
    return f"{call}() got an argument twice, by position and by name. {takes}"


def _such_as(example: str) -> str:
    return f"; for example {example}" if example else ""
