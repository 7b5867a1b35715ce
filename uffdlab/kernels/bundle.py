"""Kernels in one file, to carry them to a host without a network: ``uffdlab kernel export`` and ``import``.

The file is a tar archive, compressed by zstd.  Its first member, ``kernels.json``, lists the kernels and the path, size
and SHA-256 of each file.  The files follow in that order, as ``0/vmlinux`` and so on, and nothing else does.  Only the
headers of regular files are accepted, with the listed name and size, so no other kind of member is interpreted.
"""

from __future__ import annotations

import hashlib
import io
import tarfile
from typing import TYPE_CHECKING, Annotated, BinaryIO, cast

import msgspec
import zstandard
from msgspec import Meta, Struct

from uffdlab import cachedir
from uffdlab.cachedir import discard
from uffdlab.errors import HostUnsupported, KernelError
from uffdlab.kernels import host_checks, image
from uffdlab.kernels.apt import Resolved
from uffdlab.kernels.cache_key import made_of
from uffdlab.kernels.catalogue import bad_name
from uffdlab.kernels.images import Finished, Kernel

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from io import BufferedRandom
    from pathlib import Path

    from uffdlab.kernels.cache import Cache
    from uffdlab.kernels.catalogue import Catalogue
    from uffdlab.kernels.progress import Progress

_FORMAT = 1
_LIST = "kernels.json"
_LEVEL = 9  # of zstd
_BLOCK = 512  # bytes, of tar
_RECORD = 20 * _BLOCK
_CHUNK = 1 << 20  # bytes
_PIECE = 512  # bytes; they unpack to at most 16 MiB, as blocks of 4 bytes for 128 KiB

_Hash = Annotated[str, Meta(pattern="^[0-9a-f]{64}\\Z")]
_FileName = Annotated[str, Meta(pattern="^(modules/)?[A-Za-z0-9_][A-Za-z0-9._+-]{0,79}\\Z")]
_Size = Annotated[int, Meta(ge=0, le=1 << 30)]


class _File(Struct, forbid_unknown_fields=True, frozen=True):
    path: _FileName
    size: _Size
    sha256: _Hash


class _Kernel(Struct, forbid_unknown_fields=True, frozen=True):
    name: Annotated[str, Meta(max_length=100)]
    key: _Hash
    made_of: Annotated[str, Meta(pattern="^([0-9a-f]{64})?\\Z")]
    version: Resolved | None
    release: Annotated[str, Meta(pattern="^[!-~]{0,64}\\Z")]
    image: _FileName
    config: _FileName | None
    log: _FileName | None
    files: Annotated[list[_File], Meta(min_length=1, max_length=64)]


class _List(Struct, forbid_unknown_fields=True, frozen=True):
    format: int
    kernels: Annotated[list[_Kernel], Meta(min_length=1, max_length=64)]


class _Format(Struct):
    format: int = 0


def write(path: Path, kernels: Sequence[Finished], progress: Progress) -> str:
    """Write kernels into the file `path`, which appears when it is complete.  Return its SHA-256.

    Raises
    ------
    HostUnsupported
        The file cannot be written.
    """
    try:
        listed = _List(_FORMAT, [_described(each) for each in kernels])
        progress.stage("writing", sum(file.size for each in listed.kernels for file in each.files), "bytes")
        with cachedir.replacing(path) as file:
            packer = zstandard.ZstdCompressor(level=_LEVEL, write_checksum=True)
            with packer.stream_writer(file, closefd=False) as packed:
                _write_members(packed, kernels, listed, progress)
            file.seek(0)
            return hashlib.file_digest(cast("BufferedRandom", file), "sha256").hexdigest()
    except OSError as error:
        raise HostUnsupported(
            f"the kernels cannot be written to {path}: {error.filename or path}: {error.strerror}. Give a file in a "
            "folder that you can write to, on a disk that is not full",
            missing="a writable folder",
        ) from error


def read(path: Path, cache: Cache, catalogue: Catalogue, progress: Progress, sha256: str = "") -> list[Kernel]:
    """Take the kernels of the file `path` into the cache, all of them or none.  Return them.

    Parameters
    ----------
    sha256 : str
        What the whole file must have, if it is not empty.

    Raises
    ------
    KernelError
        The file is damaged, is no export, or has a kernel that differs from this catalogue's of the same name.
    HostUnsupported
        The file cannot be read, or the cache cannot be written to.
    """
    try:
        file = path.open("rb")
    except OSError as error:
        raise HostUnsupported(f"{path} cannot be read: {error.strerror}", missing="file") from error
    with file, host_checks.disk_errors(cache.folder, str(path)):
        found = hashlib.file_digest(file, "sha256").hexdigest() if sha256 else ""
        if found != sha256.lower():
            raise KernelError(f"{path} has the SHA-256 {found}, not {sha256}: copy it again")
        file.seek(0)
        with cache.locked("import", progress):
            incoming = cache.folder / "importing"
            discard(incoming)  # of a process that was killed here
            incoming.mkdir()
            try:
                return _publish(_unpack(_Members(file, path), incoming, catalogue, progress), cache)
            finally:
                discard(incoming)


def _described(finished: Finished) -> _Kernel:
    kernel = finished.kernel
    return _Kernel(
        kernel.name,
        kernel.key,
        finished.made_of,
        finished.version,
        kernel.release,
        kernel.image.name,
        kernel.config.name if kernel.config else None,
        kernel.log.name if kernel.log else None,
        [
            _File(path.relative_to(finished.folder).as_posix(), path.stat().st_size, _sha256(path))
            for path in finished.files()
        ],
    )


def _write_members(packed: BinaryIO, kernels: Sequence[Finished], listed: _List, progress: Progress) -> None:
    done = 0
    with tarfile.open(fileobj=packed, mode="w|", format=tarfile.USTAR_FORMAT) as tar:
        text = msgspec.json.format(msgspec.json.encode(listed), indent=1) + b"\n"
        tar.addfile(_header(_LIST, len(text)), io.BytesIO(text))
        for number, (finished, described) in enumerate(zip(kernels, listed.kernels, strict=True)):
            for each in described.files:
                with (finished.folder / each.path).open("rb") as source:
                    tar.addfile(_header(f"{number}/{each.path}", each.size), source)
                done += each.size
                progress.at(done)


def _header(name: str, size: int) -> tarfile.TarInfo:
    found = tarfile.TarInfo(name)
    found.size = size
    return found


class _Members:
    # The members of an archive, in the order in which they must come.

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self._path = path
        self._file = file
        self._unpacker = zstandard.ZstdDecompressor(max_window_size=1 << 27).decompressobj()
        self._buffer = bytearray()

    def damaged(self, why: str) -> KernelError:
        return KernelError(f"{self._path} cannot be imported: {why}. Nothing was imported: copy or export it again")

    def read(self, size: int) -> bytes:
        while len(self._buffer) < size and self._unpack_more():
            pass
        if len(self._buffer) < size:
            raise self.damaged("it is incomplete")
        data = bytes(self._buffer[:size])
        del self._buffer[:size]
        return data

    def _unpack_more(self) -> bool:
        if self._unpacker.eof:
            return False
        piece = self._file.read(_PIECE)
        if not piece:
            raise self.damaged("it is incomplete")
        try:
            self._buffer += self._unpacker.decompress(piece)
        except zstandard.ZstdError as error:
            raise self.damaged(f"it is damaged, or no file of `uffdlab kernel export` ({error})") from error
        return True

    def header(self, name: str) -> int:
        # Reads the header of the next member, which must be a regular file of this name; returns its size.
        try:
            found = tarfile.TarInfo.frombuf(self.read(_BLOCK), "utf-8", "strict")
        except (tarfile.HeaderError, ValueError) as error:
            raise self.damaged(f"it has no member {name} ({error})") from error
        if found.type != tarfile.REGTYPE or found.name != name:
            raise self.damaged(f"its next member is {found.name!r} of type {found.type!r}, not the file {name}")
        if found.size < 0:
            raise self.damaged(f"{name} has the size {found.size}")
        return found.size

    def content(self, size: int) -> Iterator[bytes]:
        left = size
        while left:
            yield (chunk := self.read(min(left, _CHUNK)))
            left -= len(chunk)
        self.zeros(-size % _BLOCK)

    def zeros(self, size: int) -> None:
        if any(self.read(size)):
            raise self.damaged("it has data between its members")

    def end(self, size: int) -> None:
        # After the last member come two blocks of zeros, and more up to a whole record.
        self.zeros(2 * _BLOCK)
        self.zeros(-(size + 2 * _BLOCK) % _RECORD)
        while not self._buffer and self._unpack_more():
            pass
        if self._buffer or self._unpacker.unused_data or self._file.read(1):
            raise self.damaged("it has more data than its list of kernels says")


def _unpack(members: _Members, incoming: Path, catalogue: Catalogue, progress: Progress) -> list[tuple[Path, Finished]]:
    size = members.header(_LIST)
    if size > _CHUNK:
        raise members.damaged(f"its list of kernels has {size} bytes")
    listed = _decoded(b"".join(members.content(size)), members)
    for each in listed.kernels:
        _check(each, members, catalogue)
    total = sum(file.size for each in listed.kernels for file in each.files)
    host_checks.require_space(incoming, total, "importing kernels")
    progress.stage("unpacking", total, "bytes")
    read, done = _padded(size), 0
    unpacked = []
    for number, each in enumerate(listed.kernels):
        folder = incoming / str(number)
        folder.mkdir()
        for file in each.files:
            name = f"{number}/{file.path}"
            if members.header(name) != file.size:
                raise members.damaged(f"{name} has another size than its list of kernels says")
            _write(folder / file.path, file, members)
            read += _padded(file.size)
            done += file.size
            progress.at(done)
        unpacked.append((folder, _finished(each, folder, members)))
    members.end(read)
    return unpacked


def _padded(size: int) -> int:
    return _BLOCK + size + -size % _BLOCK


def _decoded(text: bytes, members: _Members) -> _List:
    try:
        version = msgspec.json.decode(text, type=_Format).format
        if version != _FORMAT:
            raise members.damaged(
                f"it has the format {version}, this uffdlab reads {_FORMAT}: use the same version of uffdlab for both"
            )
        return msgspec.json.decode(text, type=_List)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise members.damaged(f"its list of kernels is not valid ({error})") from error


def _check(each: _Kernel, members: _Members, catalogue: Catalogue) -> None:
    if why := bad_name(each.name):
        raise members.damaged(f"it has a kernel {each.name!r}: {why}")
    names = [file.path for file in each.files]
    wanted = {each.image, each.config, each.log} - {None}
    if len(set(names)) < len(names) or not wanted <= {*names}:
        raise members.damaged(f"{each.name}: its files are not those that its list of kernels needs")
    if each.name in catalogue and (each.version is None or each.made_of != made_of(catalogue[each.name], each.version)):
        raise KernelError(
            f"{each.name} was made with other patches or another configuration than this uffdlab's {each.name}: use "
            "the same version of uffdlab for both, or remove your own kernel of this name. Nothing was imported",
            kernel=each.name,
        )


def _write(path: Path, file: _File, members: _Members) -> None:
    path.parent.mkdir(exist_ok=True)
    digest = hashlib.sha256()
    with path.open("xb") as out:
        for chunk in members.content(file.size):
            digest.update(chunk)
            out.write(chunk)
    if digest.hexdigest() != file.sha256:
        raise members.damaged(f"the content of {file.path} is not what was exported (SHA-256)")


def _finished(each: _Kernel, folder: Path, members: _Members) -> Finished:
    try:
        image.inspect((folder / each.image).read_bytes())
    except image.NotAKernel as error:
        raise members.damaged(f"{each.name}: its image is {error}") from error

    def inside(name: str | None) -> Path | None:
        return folder / name if name else None

    kernel = Kernel(each.name, folder / each.image, each.release, each.key, inside(each.config), inside(each.log))
    return Finished(kernel, each.made_of, each.version, imported=True)


def _publish(unpacked: list[tuple[Path, Finished]], cache: Cache) -> list[Kernel]:
    kernels = []
    for folder, finished in unpacked:
        known = cache.images.find(finished.kernel.name, finished.kernel.key)
        kernels.append(cache.images.prefer(known) if known else cache.images.publish(folder, finished))
    return kernels


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
