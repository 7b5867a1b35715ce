"""The settings of uffdlab: each is an environment variable, or a line of config.toml in the user's config folder.

No other module reads an UFFDLAB_ variable.  docs/reference/settings.md has the same table.
"""

from __future__ import annotations

import difflib
import os
import re
from pathlib import Path
from typing import Any, NamedTuple

from uffdlab import errors


class Setting(NamedTuple):
    """A variable, its key in config.toml, the values that it can have (none: any text), and whether it is a folder."""

    variable: str
    key: str
    choices: tuple[str, ...] = ()
    is_folder: bool = False


CACHE = Setting("UFFDLAB_CACHE", "cache", is_folder=True)
IMAGES = Setting("UFFDLAB_IMAGES", "images", is_folder=True)
KERNELS = Setting("UFFDLAB_KERNELS", "kernels", is_folder=True)
MIRROR = Setting("UFFDLAB_MIRROR", "mirror")
MACHINE = Setting("UFFDLAB_MACHINE", "machine")
ACCEL = Setting("UFFDLAB_ACCEL", "accel", choices=("tcg", "kvm", "auto"))
SAVED = Setting("UFFDLAB_SAVED", "saved")
BOX = Setting("UFFDLAB_BOX", "box")
TRACEBACK = Setting("UFFDLAB_TRACEBACK", "traceback", choices=("short", "full"))
SETTINGS = (CACHE, IMAGES, KERNELS, MIRROR, MACHINE, ACCEL, SAVED, BOX, TRACEBACK)


_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


def cache_folder() -> Path:
    """Return the absolute path of the cache folder, by default the user's.  It may not exist.

    Raises
    ------
    HostUnsupported
        The path begins with ``~`` and a name that no user here has.
    UsageError
        config.toml cannot be read, or has an unknown key or a value of the wrong type.  Each function here raises this.
    """
    return _folder(CACHE) or _default_folder("cache")


def images_folder() -> Path | None:
    """Return the absolute path of the shared store of kernels, or None if none is set.

    Raises
    ------
    HostUnsupported
        As for :func:`cache_folder`.
    """
    return _folder(IMAGES)


def kernels_folder() -> Path:
    """Return the absolute path of the folder with the user's kernels.toml, by default the config folder.

    Raises
    ------
    HostUnsupported
        As for :func:`cache_folder`.
    """
    return _folder(KERNELS) or _default_folder("config")


def mirror() -> tuple[str, str]:
    """Return the addresses of a mirror of Debian and of its security updates, each empty if it is not set.

    Raises
    ------
    UsageError
        It is not one address or two.
    """
    text, origin = _raw(MIRROR)
    found = text.split()
    if len(found) > 2 or not all(re.fullmatch(r"[a-z][a-z0-9+.-]*:/[^\s\"\[\]#]+", each) for each in found):
        raise errors.UsageError(
            f"{origin} is {text}: it must be the address of a mirror of Debian, scheme://host/path, which can be "
            "followed by a space and that of its security updates"
        )
    main, security = (*found, "", "")[:2]
    return main, security


def machine() -> str:
    """Return the kind of machine for a lab that names none."""
    return _text(MACHINE) or "qemu"


def accelerator() -> str:
    """Return ``"tcg"``, ``"kvm"`` or ``"auto"``.

    Raises
    ------
    UsageError
        It is set to something else.
    """
    return _text(ACCEL) or "auto"


def saved_guests() -> int:
    """Return how many bytes the saved guests may take, by default 1 GB; 0 saves none.

    Raises
    ------
    UsageError
        It is not a size.
    """
    text, origin = _raw(SAVED)
    found = re.fullmatch(r"(\d{1,9})(?: ?([KMGT])B?)?", text.strip() or "1G", re.ASCII | re.IGNORECASE)
    if found is None:
        raise errors.UsageError(f"{origin} is {text}: it must be a size like 500M or 2G, or 0 to save no guests")
    return int(found[1]) * _UNITS[(found[2] or "").upper()]


def box() -> str:
    """Return the name of the Vagrant box that the user has chosen; empty if they have not."""
    return _text(BOX)


def full_tracebacks() -> bool:
    """Return whether an error that ends a script shows all of its traceback.  A wrong setting raises no error here."""
    try:
        return _text(TRACEBACK) == "full"
    except errors.UffdlabError:
        return False


def config_file() -> Path:
    """Return the absolute path of config.toml.  It need not exist."""
    return _default_folder("config") / "config.toml"


def make_paths_absolute() -> None:
    """Make the folders in the environment absolute, for this process and its children, which may start elsewhere.

    Raises
    ------
    HostUnsupported
        As for :func:`cache_folder`.
    """
    for setting in SETTINGS:
        if setting.is_folder and os.environ.get(setting.variable):
            _folder(setting)


def _default_folder(kind: str) -> Path:
    import platformdirs  # noqa: PLC0415 - a lab from the cache folder of the environment does without

    path = platformdirs.user_cache_path("uffdlab") if kind == "cache" else platformdirs.user_config_path("uffdlab")
    return path.absolute()


def _text(setting: Setting) -> str:
    text, origin = _raw(setting)
    if text and setting.choices and text not in setting.choices:
        *others, last = setting.choices
        raise errors.UsageError(f"{origin} is {text}: it must be {', '.join(others)} or {last}")
    return text


def _folder(setting: Setting) -> Path | None:
    text, origin = _raw(setting)
    if not text:
        return None
    try:
        path = Path(text).expanduser()
    except RuntimeError as error:
        raise errors.HostUnsupported(
            f"{origin} is {text}: {error}. Set it to a folder that can be written to", missing=f"{setting.key} folder"
        ) from error
    if origin != setting.variable:
        return config_file().parent / path
    path = path.absolute()
    # So the path stays the same after a chdir, and in a child process that starts in another folder.
    os.environ[setting.variable] = str(path)
    return path


def _raw(setting: Setting) -> tuple[str, str]:
    # Returns the text and where it is from.  An empty variable is as good as none.
    if text := os.environ.get(setting.variable):
        return text, setting.variable
    path = config_file()
    return _config(path).get(setting.key, ""), f"{setting.key} in {path}"


_read: dict[Path, tuple[tuple[int, ...], dict[str, str]]] = {}  # what each config.toml had, and its stat


def _config(path: Path) -> dict[str, str]:
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise _unreadable(path, error.strerror) from error
    state = (status.st_ino, status.st_size, status.st_mtime_ns)
    if path not in _read or _read[path][0] != state:
        _read[path] = state, _parsed(path)
    return _read[path][1]


def _parsed(path: Path) -> dict[str, str]:
    import tomllib  # noqa: PLC0415 - most users have no such file

    try:
        table: dict[str, Any] = tomllib.loads(path.read_bytes().decode())
    except OSError as error:
        raise _unreadable(path, error.strerror) from error
    except (ValueError, RecursionError) as error:
        raise _unreadable(path, f"it is not TOML: {error}") from error
    keys = [setting.key for setting in SETTINGS]
    for key, value in table.items():
        if key not in keys:
            near = difflib.get_close_matches(key, keys, 1)
            meant = f"did you mean {near[0]}?" if near else f"the keys are {', '.join(keys)}"
            raise _unreadable(path, f"there is no setting {key!r}; {meant}")
        if not isinstance(value, str):
            raise _unreadable(path, f"{key} is {value!r}: it must be text in quotes")
    return table


def _unreadable(path: Path, reason: str | None) -> errors.UsageError:
    return errors.UsageError(f"{path}: {reason}. Correct or remove that file")
