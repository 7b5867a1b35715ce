"""Run a function as another user, in a folder that other users can enter."""

import contextlib
import os
import pickle
import shutil
import tempfile
from pathlib import Path

import pytest

NOBODY = 65534


@contextlib.contextmanager
def open_folder():
    """Yield a folder that every user can enter, unlike pytest's tmp_path."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def as_another_user(function, *arguments, uid=NOBODY):
    """Return what the function returns, or raise what it raises, in a child process with another uid."""
    if os.geteuid():
        pytest.skip("only root can become another user")
    read, write = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.setgroups([])
            os.setgid(uid)
            os.setuid(uid)
            answer = (function(*arguments), None)
        except BaseException as error:  # noqa: BLE001 - the parent raises it
            answer = (None, error)
        try:
            with os.fdopen(write, "wb") as file:
                pickle.dump(answer, file)
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as file:
        data = file.read()
    os.waitpid(child, 0)
    value, error = pickle.loads(data)
    if error is not None:
        raise error
    return value


def listing(folder):
    """Return the path, mode, owner, size and time of each file in a folder."""
    found = {}
    for path in [folder, *folder.rglob("*")]:
        info = path.lstat()
        found[path] = (info.st_mode, info.st_uid, info.st_size, info.st_mtime_ns, info.st_ctime_ns)
    return found
