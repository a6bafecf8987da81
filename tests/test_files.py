"""Files are written whole or not at all: kills, full disks, interrupts, and paths that name no plain file."""

import errno
import os
import re
import socket
import stat
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import cmllm_tools as cm
from cmllm_tools.files import check_writable, make_folder, write_text, write_whole

# The module alone, as all of the package takes seconds to import.
ALONE = f"""
import sys, types
package = sys.modules["cmllm_tools"] = types.ModuleType("cmllm_tools")
package.__path__ = [{str(Path(cm.__file__).parent)!r}]
from cmllm_tools.files import write_whole, OutputError
"""
OLD, NEW = b"o" * 70_000, b"n" * 3_000_000


def left(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.slow
def test_a_kill_in_the_middle_leaves_the_old_file_or_the_new_one(tmp_path):
    """Killed at any moment; leftovers are recognisable, and the next save removes them."""
    path = tmp_path / "out"
    path.write_bytes(OLD)
    code = (
        f"{ALONE}import itertools\n"
        "print('ready', flush=True)\n"
        "for n in itertools.count():\n"
        f"    write_whole({str(path)!r}, lambda file: [file.write(b'n' * 100_000) for _ in range(30)])\n"
        "    print(n, flush=True)\n"
    )
    for number in range(20):
        with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
            process.stdout.readline()
            if number % 2:
                process.stdout.readline()
            threading.Event().wait(0.0007 * number)
            process.kill()
        assert path.read_bytes() in (OLD, NEW)
        assert all(re.fullmatch(r"\.cmllm-[0-9a-f]+\.partial", name) for name in left(tmp_path) if name != "out")
    write_whole(path, lambda file: file.write(OLD))
    assert left(tmp_path) == ["out"]


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), KeyboardInterrupt(), RuntimeError("mine")]
)
def test_whatever_ends_the_writing_keeps_the_old_file(tmp_path, error):
    path = tmp_path / "out"
    path.write_bytes(OLD)

    def writer(file):
        file.write(NEW)
        raise error

    ours = isinstance(error, OSError)
    words = r"out cannot be written: No space left on device\. A file that was there is as it was" if ours else None
    with pytest.raises(cm.OutputError if ours else type(error), match=words):
        write_whole(path, writer)
    assert path.read_bytes() == OLD
    assert left(tmp_path) == ["out"]


def test_a_full_disk_keeps_the_old_file(tmp_path):
    """The system's own refusal in the middle of a write, by a limit on the size of files."""
    path = tmp_path / "out"
    path.write_bytes(OLD)
    code = (
        f"{ALONE}import resource\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))\n"
        "try:\n"
        f"    write_whole({str(path)!r}, lambda file: file.write(b'n' * 3_000_000))\n"
        "except OutputError as error:\n"
        "    print(error)\n"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said == f"{path} cannot be written: File too large. A file that was there is as it was.\n"
    assert path.read_bytes() == OLD
    assert left(tmp_path) == ["out"]


def test_a_file_that_another_writes_is_not_tidied_up(tmp_path):
    def outer(file):
        write_whole(tmp_path / "other", lambda other: other.write(b"2"))
        file.write(b"1")

    write_whole(tmp_path / "out", outer)
    assert (tmp_path / "out").read_bytes() == b"1"
    assert left(tmp_path) == ["other", "out"]


def test_concurrent_writers_leave_one_whole_file(tmp_path):
    path = tmp_path / "out"
    texts = [bytes([65 + number]) * 300_000 for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda text: write_whole(path, lambda file: file.write(text)), texts * 4))
    assert path.read_bytes() in texts
    assert left(tmp_path) == ["out"]


def test_permissions_are_those_of_the_umask_or_of_the_old_file(tmp_path):
    path = tmp_path / "out"
    before = os.umask(0o022)
    try:
        write_text(path, "1")
        assert stat.S_IMODE(path.stat().st_mode) == 0o644
        path.chmod(0o640)
        os.umask(0o077)
        write_text(path, "2")
        assert stat.S_IMODE(path.stat().st_mode) == 0o640
        write_text(tmp_path / "own", "3")
        assert stat.S_IMODE((tmp_path / "own").stat().st_mode) == 0o600
    finally:
        os.umask(before)


def test_a_symlink_stays_and_its_target_is_replaced(tmp_path):
    (tmp_path / "real").mkdir()
    target, link, dangling = tmp_path / "real/file", tmp_path / "link", tmp_path / "dangling"
    target.write_text("old")
    link.symlink_to(target)
    dangling.symlink_to(Path("real") / "later")
    assert write_text(link, "new") == link
    write_text(dangling, "later")
    assert link.is_symlink() and dangling.is_symlink()
    assert (target.read_text(), (tmp_path / "real/later").read_text()) == ("new", "later")
    assert left(tmp_path / "real") == ["file", "later"]


def special_files(folder):
    (folder / "folder").mkdir()
    os.mkfifo(folder / "pipe")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(folder / "socket"))
    (folder / "to_null").symlink_to("/dev/null")
    (folder / "to_stdout").symlink_to("/dev/stdout")
    (folder / "round").symlink_to(folder / "round")
    (folder / "plain").write_text("a file")
    return [folder / name for name in ("folder", "pipe", "socket", "to_null", "to_stdout", "round")]


def test_what_is_no_regular_file_is_refused_and_stays(tmp_path):
    """A pipe without a reader hangs, a device would be replaced, /dev/stdout may be a file that a shell holds open."""
    paths = [
        *special_files(tmp_path),
        "/dev/null",
        "/dev/stdout",
        "/dev/fd/1",
        "/proc/self/fd/1",
        "/proc/version",
        tmp_path,
    ]
    before = left(tmp_path), Path("/dev/null").stat().st_rdev
    for path in paths:
        for act in (check_writable, lambda path: write_text(path, "x")):
            with pytest.raises(cm.OutputError, match=r"must name a file|must be a regular file, no device, pipe"):
                act(path)
    assert (left(tmp_path), Path("/dev/null").stat().st_rdev) == before
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("nul\0byte", r"nul\\0byte names none: .*null"),
        ("half\ud800", r"half\\ud800 names none"),
        ("x" * 300, r"x\.\.\.x+ names none: File name too long"),
        ("a/" * 3000 + "x", "names none: File name too long"),
        ("~nobody_of_this_name/x", "names none: Could not determine home"),
        (
            "no/folder/x",
            "folder of an output path must exist; there is no .*no/folder, so that no/folder/x cannot be written",
        ),
        ("plain/x", "folder of an output path must exist; there is no .*plain"),
        ("", "is a folder"),
        ("..", "is a folder"),
        (None, "None names none"),
        (b"bytes", "names none"),
        (3, "3 names none"),
    ],
)
def test_paths_that_name_no_file_are_refused_in_words(tmp_path, monkeypatch, path, words):
    monkeypatch.chdir(tmp_path)
    Path("plain").write_text("a file")
    for act in (check_writable, lambda path: write_text(path, "x")):
        with pytest.raises(cm.OutputError, match=words):
            act(path)
    assert left(tmp_path) == ["plain"]


def test_names_of_full_length_and_undecodable_ones_are_written(tmp_path):
    for name in ("x" * 255, "\udcff.json", "é" * 100):
        check_writable(tmp_path / name)
        assert write_text(tmp_path / name, "half \ud800").read_text() == "half \\ud800"
    assert len(left(tmp_path)) == 3


def test_home_is_filled_in(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert write_text("~/out", "x") == tmp_path / "out"
    assert make_folder("~/a/b").is_dir()
    with pytest.raises(cm.OutputError, match="output folder must be one that can be made"):
        make_folder("~/out/b")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everything")
def test_what_may_not_be_written_is_refused(tmp_path):
    path = tmp_path / "out"
    path.write_bytes(OLD)
    path.chmod(0o444)
    with pytest.raises(cm.OutputError, match="read-only"):
        check_writable(path)
    tmp_path.chmod(0o555)
    with pytest.raises(cm.OutputError, match="Permission denied"):
        check_writable(tmp_path / "new")
    tmp_path.chmod(0o755)


def test_the_error_says_the_cause_not_what_was_to_be_saved(tmp_path):
    for kind in (cm.OutputError, cm.CmllmError, ValueError):
        with pytest.raises(kind, match="is a folder") as raised:
            write_text(tmp_path, "x")
    assert not isinstance(raised.value, cm.TraceError | cm.DataError)
