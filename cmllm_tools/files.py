"""Files written whole or not at all, or line by line, and what an output path must be."""

import os
import secrets
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from io import FileIO
from os import PathLike
from pathlib import Path
from types import ModuleType
from typing import BinaryIO

from .errors import OutputError
from .strict import shown

fcntl: ModuleType | None
try:
    import fcntl
except ImportError:  # Windows has none: there leftovers stay, and nothing is locked.
    fcntl = None

# What is being written lies beside its target under such a name; a process that is killed leaves it there.
PARTIAL = (".cmllm-", ".partial")
# Bytes of a file that are looked at together, for its last line.
_BLOCK = 1 << 16
UNTOUCHED = "A file that was there is as it was."


def write_whole(path: str | PathLike[str], writer: Callable[[BinaryIO], object], kept: str = UNTOUCHED) -> Path:
    """Write a file so that at any moment, and after a crash, there is the whole new one or the whole old one.

    `writer` fills a new file of its own name in the same folder, which is forced to the disk and then renamed. It has the
    permissions of the file it replaces, or of a new file under the umask. A symlink stays, and its target is replaced; what
    other hard links lead to stays as it was. The unfinished file is removed after an error or an interrupt; one that a
    killed process left (`.cmllm-*.partial`) is removed by the next save into its folder.

    Args:
        path: of the file; `~` is the home folder. The folder must exist.
        writer: is given the open file, in bytes.
        kept: last sentence of the error's message: what is not lost.

    Returns:
        The path, with the home folder filled in.

    Raises:
        OutputError: for a path that names no regular file, or a file that cannot be written (a full disk, missing
            permission). Other errors of `writer` pass as they are.
    """
    path, target = _target(path)
    try:
        with _partial(target.parent) as (partial, file):
            writer(file)
            file.flush()
            with suppress(FileNotFoundError):
                _make_alike(partial, target.stat())
            os.fsync(file.fileno())
            if os.name == "nt":  # where an open file cannot be renamed
                file.close()
            partial.replace(target)
        _sync_folder(target.parent)
        _tidy(target.parent)
    except OSError as error:
        raise OutputError(f"{said(path)} cannot be written: {reason(error)}. {kept}") from error
    return path


def write_text(path: str | PathLike[str], text: str, kept: str = UNTOUCHED) -> Path:
    """`write_whole` for a text in UTF-8; half characters (lone surrogates) are written as their escapes.

    Raises:
        OutputError: as `write_whole`.
    """
    return write_whole(path, lambda file: file.write(text.encode("utf-8", "backslashreplace")), kept)


def check_writable(path: str | PathLike[str]) -> Path:
    """The path, with the home folder filled in, if a file can be written there; for use before a long run.

    Raises:
        OutputError: when the path names no regular file, or its folder is missing or not writable.
    """
    path, target = _target(path)
    try:
        with _partial(target.parent):
            return path
    except OSError as error:
        raise OutputError(f"{said(path)} cannot be written: {reason(error)}.") from error


def make_folder(path: str | PathLike[str]) -> Path:
    """The folder, made with those above it where it is missing.

    Raises:
        OutputError: when it cannot be made, or a file has its name.
    """
    try:
        path = Path(path).expanduser()
        path.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError, TypeError, RuntimeError) as error:
        raise OutputError(
            f"An output folder must be one that can be made; {said(path)} cannot: {reason(error)}."
        ) from error
    return path


@contextmanager
def appending(path: str | PathLike[str], whole: Callable[[bytes], bool]) -> Iterator[Callable[[bytes], None]]:
    """Add lines to a file, each forced to the disk before the next, which nobody else adds to meanwhile.

    A last line without its end, which a killed process or a full disk left, is cut off, or ended where it is `whole`, when
    the first line is added: until then nothing of the file is changed, so that one of another kind can be refused.

    Args:
        path: of the file; made where there is none. The folder must exist.
        whole: whether a last line without its end is all there; raises for one that is none of the caller's.

    Returns:
        A context; within, a function that adds a line, which is given without its end.

    Raises:
        OutputError: for a path that names no regular file, one that another process adds to, or a line that cannot be
            written.
    """
    path, target = _target(path)
    try:
        file = target.open("ab", buffering=0)
    except OSError as error:
        raise OutputError(f"{said(path)} cannot be written: {reason(error)}.") from error
    with file:
        if not _claimed(file.fileno()):
            raise OutputError(f"{said(path)} cannot be written: another process adds to it. Give each a file of its own.")
        _sync_folder(target.parent)
        ended = False

        def add(line: bytes) -> None:
            nonlocal ended
            left = memoryview(line + b"\n")
            try:
                if not ended:
                    _end_last_line(target, file, whole)
                # A full disk may leave half of the line, which is cut off before the next.
                ended = False
                while left:
                    left = left[file.write(left) :]
                os.fsync(file.fileno())
                ended = True
            except OSError as error:
                raise OutputError(f"{said(path)} cannot be written: {reason(error)}. What was there is whole.") from error

        yield add


def _end_last_line(path: Path, added_to: FileIO, whole: Callable[[bytes], bool]) -> None:
    with path.open("rb") as file:
        # Back to the last end of a line, some of the file at a time.
        size = start = file.seek(0, os.SEEK_END)
        tail = b""
        while start and b"\n" not in tail:
            end, start = start, max(0, start - _BLOCK)
            file.seek(start)
            tail = file.read(end - start) + tail
    last = tail.rpartition(b"\n")[2]
    if last and whole(last):
        added_to.write(b"\n")
    elif last:
        added_to.truncate(size - len(last))


def existing(path: object) -> Path | None:
    """The path, with the home folder filled in, where something is there; None for nothing, or what can name nothing."""
    try:
        found = Path(path).expanduser()  # type: ignore[arg-type]  # what is none raises
        return found if found.exists() else None
    except (OSError, ValueError, TypeError, RuntimeError):
        return None


def said(path: object, most: int = 200) -> str:
    """A path, or an error, for a message: half characters escaped, and cut in the middle where it is long."""
    text = (
        (str(path) if isinstance(path, str | PathLike | BaseException) else shown(path))
        .encode("utf-8", "backslashreplace")
        .decode()
        .replace("\0", "\\0")
    )
    return text if len(text) <= most else f"{text[: most - 80]}...{text[-70:]}"


def _target(given: str | PathLike[str]) -> tuple[Path, Path]:
    """The path as it was given, and the file that it leads to."""
    try:
        path = Path(given).expanduser()
        target = Path(os.path.realpath(path))
        kind = _mode(path)
        folder = _mode(target.parent)
        streams = _among_streams(path)
        locked = kind is not None and not os.access(target, os.W_OK)
    except (OSError, ValueError, TypeError, RuntimeError) as error:
        raise OutputError(f"An output path must name a file; {said(given)} names none: {reason(error)}.") from error
    if kind is not None and stat.S_ISDIR(kind):
        raise OutputError(f"An output path must name a file; {said(path)} is a folder.")
    if streams or (kind is not None and not stat.S_ISREG(kind)):
        raise OutputError(
            f"{said(path)} cannot be written: an output must be a regular file, no device, pipe, socket or stream."
        )
    if folder is None or not stat.S_ISDIR(folder):
        missing = target.parent if path.is_symlink() else path.parent
        raise OutputError(
            f"The folder of an output path must exist; there is no {said(missing)}, so that {said(path)} cannot be written."
        )
    if locked:
        raise OutputError(f"{said(path)} cannot be written: the file there is read-only.")
    return path, target


def _mode(path: Path) -> int | None:
    """Kind and permissions of what a path leads to, None for nothing; nothing is opened, as a pipe would hang."""
    try:
        return path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return None


def _among_streams(path: Path) -> bool:
    """Whether a path, or a link on its way, is the system's: `/dev/stdout` may lead to a file that a shell holds open."""
    for _ in range(40):
        path = Path(os.path.realpath(path.parent)) / path.name
        if path.is_relative_to("/dev/shm"):  # noqa: S108 (a file system in memory, whose files are plain ones)
            return False
        if any(path.is_relative_to(root) for root in ("/dev", "/proc", "/sys")):
            return True
        if not path.is_symlink():
            return False
        path = path.parent / path.readlink()
    return False


@contextmanager
def _partial(folder: Path) -> Iterator[tuple[Path, BinaryIO]]:
    """A new file of the folder, claimed so that nobody tidies it up; gone when left, unless it was renamed."""
    while True:
        path = folder / secrets.token_hex(8).join(PARTIAL)
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
            with os.fdopen(descriptor, "wb") as file:
                # Somebody who tidies up may have been between.
                if _claimed(descriptor):
                    yield path, file
                    return
        finally:
            path.unlink(missing_ok=True)


def _claimed(descriptor: int) -> bool:
    """Take the system's lock on an open file, without waiting; False where another has it, or the file has no name left."""
    if fcntl is None:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        # A file system without locks.
        return True
    return os.fstat(descriptor).st_nlink > 0


def _tidy(folder: Path) -> None:
    """Remove what killed processes left, where that can be listed: unfinished files that nobody has claimed."""
    if fcntl is None:
        return
    left: list[str] = []
    with suppress(OSError), os.scandir(folder) as entries:
        left = [entry.path for entry in entries if entry.name.startswith(PARTIAL[0]) and entry.name.endswith(PARTIAL[1])]
    for path in left:
        with suppress(OSError):
            descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                # Not `_claimed`: where there are no locks, somebody may be writing it.
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if stat.S_ISREG(os.fstat(descriptor).st_mode):
                    Path(path).unlink()
            finally:
                os.close(descriptor)


def _make_alike(path: Path, old: os.stat_result) -> None:
    """Permissions, and where allowed the owner, of the file that is replaced."""
    if hasattr(os, "chown") and (old.st_uid, old.st_gid) != (path.stat().st_uid, path.stat().st_gid):
        with suppress(PermissionError):
            os.chown(path, old.st_uid, old.st_gid)
    path.chmod(stat.S_IMODE(old.st_mode))


def _sync_folder(folder: Path) -> None:
    """Force the new name to the disk, where folders can be opened."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def reason(error: BaseException) -> str:
    """Why a file cannot be used, without the path that the message names already."""
    return (error.strerror if isinstance(error, OSError) else None) or said(error)
