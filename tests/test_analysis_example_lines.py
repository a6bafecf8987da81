"""Files with a line to each example: added to by several, cut by kills, and damaged."""

import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import cmllm_tools as cm
from cmllm_tools.analysis.example_lines import ExampleLines

HEAD = {"model": "m", "heads": 3}
WHAT = "It must be a file of examples"


def opened(path):
    file = ExampleLines(path, WHAT)
    return file, file.news()


def test_lines_come_back_and_others_are_heard_with_one_s_own(tmp_path):
    path = tmp_path / "found.jsonl"
    assert not ExampleLines.begun(path)
    one, other = ExampleLines(path, WHAT), ExampleLines(path, WHAT)
    assert one.add(HEAD, {"a": {"x": 1}}) == {}
    assert other.add(HEAD, {"b": {"x": [2.5, None]}}) == {"a": {"x": 1}}
    assert one.add(HEAD, {"c": {"x": 3}, "d": {"x": 4}}) == {"b": {"x": [2.5, None]}}
    assert one.head == HEAD
    assert opened(path)[1] == {"a": {"x": 1}, "b": {"x": [2.5, None]}, "c": {"x": 3}, "d": {"x": 4}}
    assert len(path.read_bytes().splitlines()) == 5
    assert [file.name for file in tmp_path.iterdir()] == ["found.jsonl"]
    with pytest.raises(cm.DataError, match="has become another run's"):
        ExampleLines(path, WHAT).add(HEAD | {"heads": 4}, {"e": {}})


def test_a_line_is_added_and_nothing_is_written_again(tmp_path):
    """What a sweep of a thousand examples writes grows with them, and not with their square."""
    path, sizes = tmp_path / "found.jsonl", []
    file = ExampleLines(path, WHAT)
    for number in range(20):
        before = path.read_bytes() if path.exists() else b""
        file.add(HEAD, {str(number): {"x": [0.5] * 100}})
        assert path.read_bytes().startswith(before)
        sizes.append(path.stat().st_size)
    assert max(np.diff(sizes)) - min(np.diff(sizes)) <= 1


def test_what_threads_add_at_once_is_all_there(tmp_path):
    path = tmp_path / "found.jsonl"
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda number: ExampleLines(path, WHAT).add(HEAD, {str(number): {"x": number}}), range(16)))
    assert {int(key): data["x"] for key, data in opened(path)[1].items()} == {number: number for number in range(16)}


def test_a_file_cut_anywhere_is_gone_on_with(tmp_path):
    whole = tmp_path / "whole.jsonl"
    ExampleLines(whole, WHAT).add(HEAD, {"a": {"x": 1}, "b": {"x": 2}})
    data = whole.read_bytes()
    ends = [at for at, byte in enumerate(data) if byte == ord("\n")]
    for cut in [*range(1, 60, 7), *range(60, len(data), 11), len(data) - 1]:
        path = tmp_path / "cut.jsonl"
        path.write_bytes(data[:cut])
        left = max(sum(end < cut for end in ends) - 1, 0)
        file, found = opened(path)
        assert list(found) == ["a", "b"][:left], cut
        file.add(HEAD, {"c": {"x": 3}})
        # One that was whole but for its end is ended.
        again = opened(path)[1]
        assert list(again)[:left] == ["a", "b"][:left]
        assert list(again)[-1] == "c"
        assert len(again) in (left + 1, left + 2)


def test_no_flipped_byte_passes(tmp_path):
    path = tmp_path / "found.jsonl"
    ExampleLines(path, WHAT).add(HEAD, {"a": {"x": 1}, "b": {"x": 2}})
    data = path.read_bytes()
    rng = np.random.default_rng(0)
    last = data.rstrip(b"\n").rfind(b"\n")
    for place in range(last):
        path.write_bytes(data[:place] + bytes([data[place] ^ int(rng.integers(1, 256))]) + data[place + 1 :])
        if data[place : place + 1] == b"\n":
            continue
        with pytest.raises(cm.DataError, match=WHAT):
            opened(path)


@pytest.mark.parametrize(
    "foreign", [b"hello\n", b"\xff\xd8\n", b'{"a": 1}\n', b"[]\n", json.dumps({"sha256": "0" * 64}).encode()]
)
def test_files_of_another_kind_are_left_as_they_are(tmp_path, foreign):
    path = tmp_path / "precious"
    path.write_bytes(foreign)
    with pytest.raises(cm.DataError):
        ExampleLines(path, WHAT).add(HEAD, {"a": {}})
    assert path.read_bytes() == foreign
    with pytest.raises(cm.DataError, match=r"It must be a file of examples; .* is none"):
        opened(tmp_path / "nowhere")
