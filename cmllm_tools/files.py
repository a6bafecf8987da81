"""Files written whole or not at all, what an output path must be, and a lock between processes that write one file."""

import os
import secrets
import stat
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
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
# Seconds to wait for another process that holds a file: reading, merging and writing take far less.
PATIENCE = 60.0
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
def held(path: str | PathLike[str]) -> Iterator[Path]:
    """Hold an output path against other processes and threads that hold it too, to read, merge and write it.

    The lock is the system's (`flock`) on a file beside the path (`.cmllm-*.lock`), and ends with the process: one that was
    killed blocks nobody. Where the file system or the system (Windows) has no such locks, nothing is held.

    Raises:
        OutputError: when another process has held the path for a minute.
    """
    path, target = _target(path)
    digest = sha256(os.fsencode(target.name)).hexdigest()[:16]
    lock = target.with_name(f".cmllm-{digest}.lock")
    deadline = time.monotonic() + PATIENCE
    descriptor = None
    try:
        while True:
            descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
            if _claimed(descriptor):
                break
            os.close(descriptor)
            descriptor = None
            if time.monotonic() > deadline:
                raise OutputError(f"{said(path)} cannot be written: another process has held it for {PATIENCE:.0f} s.")
            time.sleep(0.02)
    except OSError as error:
        raise OutputError(f"{said(path)} cannot be written: its lock {lock.name} fails: {reason(error)}.") from error
    try:
        yield path
    finally:
        # While it is held: who waits for it sees that it has no name any more, and makes a new one.
        with suppress(OSError):
            lock.unlink()
        os.close(descriptor)


@contextmanager
def appending(path: str | PathLike[str], whole: Callable[[bytes], bool]) -> Iterator[Callable[[bytes], None]]:
    """Add lines to a file, each forced to the disk before the next, which nobody else adds to meanwhile.

    A last line without its end, which a killed process or a full disk left, is cut off, or ended where it is `whole`.

    Args:
        path: of the file; made where there is none. The folder must exist.
        whole: whether a last line without its end is all there.

    Returns:
        A context; within, a function that adds a line, which is given without its end.

    Raises:
        OutputError: for a path that names no regular file, one that another process adds to, or a line that cannot be
            written.
    """
    path, target = _target(path)
    descriptor = None
    try:
        descriptor = os.open(target, os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0), 0o666)
        if not _claimed(descriptor):
            raise OutputError(f"{said(path)} cannot be written: another process adds to it. Give each a file of its own.")
        _end_last_line(descriptor, whole)
        _sync_folder(target.parent)
    except OSError as error:
        raise OutputError(f"{said(path)} cannot be written: {reason(error)}.") from error
    finally:
        if descriptor is not None and sys.exc_info()[0] is not None:
            os.close(descriptor)

    def add(line: bytes) -> None:
        left = memoryview(line + b"\n")
        try:
            while left:
                left = left[os.write(descriptor, left) :]
            os.fsync(descriptor)
        except OSError as error:
            raise OutputError(f"{said(path)} cannot be written: {reason(error)}. What was there is whole.") from error

    try:
        yield add
    finally:
        os.close(descriptor)


def _end_last_line(descriptor: int, whole: Callable[[bytes], bool]) -> None:
    size = os.fstat(descriptor).st_size
    with os.fdopen(os.dup(descriptor), "rb") as file:
        # Back to the last end of a line, some of the file at a time.
        start, tail = size, b""
        while start and b"\n" not in tail:
            end, start = start, max(0, start - _BLOCK)
            file.seek(start)
            tail = file.read(end - start) + tail
    last = tail.rpartition(b"\n")[2]
    if last and whole(last):
        os.write(descriptor, b"\n")
    elif last:
        os.ftruncate(descriptor, size - len(last))


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
