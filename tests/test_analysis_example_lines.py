"""Files with a line to each example: cut by kills, damaged, and put together."""

import json

import numpy as np
import pytest

import cmllm_tools as cm
from cmllm_tools.analysis.example_lines import Found, begun, first_line, head_of, is_whole, merge_lines, read_lines
from cmllm_tools.files import appending

HEAD = {"model": "m", "heads": 3}
WHAT = "It must be a file of examples"
WRONG = {"kind": "ImageError", "message": "no image"}


def written(path, *found, head=HEAD):
    with appending(path, is_whole) as add:
        add(first_line(head))
        for each in found:
            add(each.line())
    return path


def read(path):
    head, *lines = read_lines(path, WHAT)
    return head_of(head), [Found.of_line(each) for each in lines]


def of(key, **figures):
    return Found(key, figures)


def test_lines_come_back(tmp_path):
    path = tmp_path / "found.jsonl"
    assert not begun(path)
    written(path, of("a", x=1), of("b", x=np.array([2.5, np.nan])), Found("c", {}, "line 3", WRONG))
    assert begun(path)
    head, found = read(path)
    assert head == HEAD
    assert [(each.key, each.figures, each.where, each.error) for each in found] == [
        ("a", {"x": 1}, "", None),
        ("b", {"x": [2.5, None]}, "", None),
        ("c", {}, "line 3", WRONG),
    ]


def test_a_file_cut_anywhere_is_gone_on_with(tmp_path):
    data = written(tmp_path / "whole.jsonl", of("a", x=1), of("b", x=2)).read_bytes()
    ends = [at for at, byte in enumerate(data) if byte == ord("\n")]
    for cut in [*range(1, 60, 7), *range(60, len(data), 11), len(data) - 1]:
        path = tmp_path / "cut.jsonl"
        path.write_bytes(data[:cut])
        # One that is whole but for its end counts, and is ended.
        whole = sum(end <= cut for end in ends)
        lines = read_lines(path, WHAT)
        assert len(lines) == whole, cut
        with appending(path, is_whole) as add:
            add(of("c", x=3).line())
        assert read_lines(path, WHAT) == [*lines, {"example": "c", "x": 3}]


def test_no_flipped_byte_passes(tmp_path):
    path = written(tmp_path / "found.jsonl", of("a", x=1), of("b", x=2))
    data = path.read_bytes()
    rng = np.random.default_rng(0)
    last = data.rstrip(b"\n").rfind(b"\n")
    for place in range(last):
        path.write_bytes(data[:place] + bytes([data[place] ^ int(rng.integers(1, 256))]) + data[place + 1 :])
        if data[place : place + 1] == b"\n":
            continue
        with pytest.raises(cm.DataError, match=WHAT):
            read_lines(path, WHAT)


@pytest.mark.parametrize(
    "foreign", [b"hello\n", b"hello", b"\xff\xd8\n", b"[]\n", json.dumps({"sha256": "0" * 64}).encode(), b'{"a": 1}\n']
)
def test_files_of_another_kind_are_left_as_they_are(mllm, tmp_path, foreign):
    path = tmp_path / "precious"
    path.write_bytes(foreign)
    scene = cm.demo_scene()
    examples = [cm.analysis.Example(scene.image, scene.question, scene.region("box"))]
    for run in (
        lambda: cm.analysis.rank_heads(mllm, examples, path=path, progress=False),
        lambda: cm.analysis.sweep_windows(mllm, examples, [(0, 1)], path=path, progress=False),
    ):
        with pytest.raises(cm.DataError):
            run()
        assert path.read_bytes() == foreign
    with pytest.raises(cm.DataError, match=r"It must be a file of examples; .* is none"):
        read_lines(tmp_path / "nowhere", WHAT)


def test_what_was_found_comes_before_an_error(tmp_path):
    failed = Found("a", {}, "line 1", WRONG)
    one = written(tmp_path / "one.jsonl", failed, of("b", x=2))
    other = written(tmp_path / "other.jsonl", of("a", x=1), failed)
    for order in ([one, other], [other, one]):
        path, count = merge_lines(order, tmp_path / "all.jsonl")
        assert count == 2
        assert {each.key: each.figures for each in read(path)[1]} == {"a": {"x": 1}, "b": {"x": 2}}
    cut = tmp_path / "cut.jsonl"
    cut.write_bytes(one.read_bytes().split(b"\n")[0][:-1])
    with pytest.raises(cm.DataError, match=r"none of these has its first line"):
        merge_lines([cut], tmp_path / "all.jsonl")
    with pytest.raises(cm.DataError, match=r"third.jsonl is of another model, or other settings"):
        merge_lines([one, written(tmp_path / "third.jsonl", head={"model": "n"})], tmp_path / "all.jsonl")
