"""Lines of files as they come: plain, gzip, UTF-16 of a Windows shell, a pipe; bounded, whatever they hold."""

from __future__ import annotations

import codecs
import errno
import gzip
import io
import zlib
from typing import TYPE_CHECKING, BinaryIO, Final, final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_CHUNK: Final = 1 << 20
# The largest request that receivers take is a fraction of it; a file without line ends may be of any size.
MAX_LINE: Final = 256 << 20
# What stands for a line that is too long, or cut short by a damaged file: it is no JSON, so that it is counted.
UNREADABLE: Final = b"\xff"

GZIP: Final = b"\x1f\x8b"
_ZSTD: Final = b"\x28\xb5\x2f\xfd"
_SQLITE: Final = b"SQLite f"  # "ormat 3": eight bytes will do
_UTF_16: Final = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


@final
class LineSplitter:
    """Bytes as they come in, lines as they become whole."""

    __slots__ = ("_is_too_long", "_parts", "_size")

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._size = 0
        self._is_too_long = False

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """Yield the lines that *chunk* makes whole, without their ends."""
        first, *others = chunk.split(b"\n")
        self._keep(first)
        for line in others:
            yield from self.rest()
            self._keep(line)

    def rest(self) -> Iterator[bytes]:
        """Yield what has come since the last end of a line, if anything, and forget it."""
        if self._is_too_long:
            yield UNREADABLE
        elif self._parts:
            yield b"".join(self._parts)
        self._parts, self._size, self._is_too_long = [], 0, False

    def _keep(self, part: bytes) -> None:
        if not part or self._is_too_long:
            return
        self._size += len(part)
        self._parts.append(part)
        if self._size > MAX_LINE:
            self._parts, self._is_too_long = [], True


def lines_of(file: BinaryIO, on_read: Callable[[int], None] | None = None) -> Iterator[bytes]:
    """
    Yield the lines of *file* without their ends; empty ones may be left out.

    Args:
        file: A file or a pipe that has not been read from; unpacked if it is gzip, whatever its name.
        on_read: Told how many bytes of the file were read since it was told last.

    Raises:
        OSError: It cannot be read.
    """
    told = _Told(file, on_read)
    start = told.start
    if start.startswith(_ZSTD) or start[4:].startswith(_ZSTD):
        reason = "it is compressed with zstd; unpack it first, or let the collector write `compression: none`"
        raise OSError(errno.ENOTSUP, reason)
    if start.startswith(_SQLITE):
        reason = "it is a database; that of `tracekit serve` is shown by `tracekit serve --db FILE`"
        raise OSError(errno.ENOTSUP, reason)
    chunks = _unpacked(told) if start.startswith(GZIP) else _chunks(told)
    splitter = LineSplitter()
    for chunk in _as_utf8(chunks):
        yield from splitter.feed(chunk)
    yield from splitter.rest()


@final
class _Told(io.RawIOBase):
    """A file whose first bytes are known and whose reader is told of."""

    def __init__(self, file: BinaryIO, on_read: Callable[[int], None] | None) -> None:
        super().__init__()
        self._read = file.read1 if isinstance(file, io.BufferedReader) else file.read
        self._on_read = on_read
        # A pipe may give less than what was asked for.
        self.start = b""
        while len(self.start) < 8 and (more := self._read(8 - len(self.start))):  # noqa: PLR2004  # the longest magic
            self.start += more
        self._unread = self.start

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        size = _CHUNK if size < 0 else size
        chunk = self._unread[:size] or self._read(size)
        self._unread = self._unread[size:]
        if self._on_read is not None:
            self._on_read(len(chunk))
        return chunk


def _chunks(file: _Told) -> Iterator[bytes]:
    while chunk := file.read(_CHUNK):
        yield chunk


def _unpacked(file: _Told) -> Iterator[bytes]:
    with gzip.GzipFile(fileobj=file) as unpacked:
        while True:
            try:
                chunk = unpacked.read1(_CHUNK)
            except (EOFError, zlib.error, gzip.BadGzipFile):
                # Still being written, or damaged: what came before it counts.
                yield b"\n" + UNREADABLE
                return
            if not chunk:
                return
            yield chunk


def _as_utf8(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Yield *chunks* without a byte order mark, UTF-16 as UTF-8."""
    first = next(chunks, b"")
    if not first.startswith(_UTF_16):
        yield first.removeprefix(codecs.BOM_UTF8)
        yield from chunks
        return
    decoder = codecs.getincrementaldecoder("utf-16")("replace")
    yield decoder.decode(first).encode()
    for chunk in chunks:
        yield decoder.decode(chunk).encode()
