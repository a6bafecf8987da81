import json
import os
from contextlib import nullcontext
from dataclasses import fields, replace
from pathlib import Path

import pytest

import cmllm_tools as cm
from cmllm_tools import evaluation
from cmllm_tools.bench.heldout import HELDOUT
from cmllm_tools.evaluation import records as module
from cmllm_tools.evaluation.records import Record, is_whole, latest
from cmllm_tools.files import appending

ONE = Record(
    id=7,
    method="plus",
    settings={"name": "ControlMLLMPlus", "layers": [0, 3]},
    model="embedded",
    answer="a cat",
    ids=(3, 4),
    scores={"right": 1.0},
    scorer="strict",
    question="what?",
    names=("cat",),
    regions=(cm.Box(0, 0, 5, 5).to_json(),),
    size=(30, 20),
    share=(0.1, 0.6),
    versions={"torch": "2"},
)


def written(path, *records, end=b"\n"):
    path.write_bytes(b"\n".join(each.line() for each in records) + end)
    return path


def test_a_record_is_a_line_and_comes_back():
    assert set(module._READERS) == {each.name for each in fields(Record)}
    assert b"\n" not in ONE.line()
    assert Record.of_line(ONE.line()) == ONE
    assert ONE.region == [cm.Box(0, 0, 5, 5)]
    half = replace(ONE, answer="half \ud800", error={"kind": "x", "message": "\u2028"})
    assert Record.of_line(half.line()) == half


BAD = [None, True, 1.5, "text", ["a"], {"a": {}}, -1]


@pytest.mark.parametrize("name", [each.name for each in fields(Record)])
def test_fields_of_another_kind_are_named_by_file_and_line(tmp_path, name):
    data = json.loads(ONE.line())
    refused = 0
    for value in BAD:
        path = tmp_path / "records.jsonl"
        path.write_text(f"{ONE.line().decode()}\n{json.dumps(data | {name: value})}\n")
        try:
            found = evaluation.read_records(path)
        except cm.DataError as error:
            assert f"line 2 is no record: it's {name}" in str(error)
            refused += 1
        else:
            assert len(found) == 2
    assert refused >= 3


@pytest.mark.parametrize("line", [b"[]", b"{", b"3", b'{"record": "0"}', b"\xff", b"[" * 9000 + b"]" * 9000])
def test_lines_that_are_no_records_are_named(tmp_path, line):
    path = tmp_path / "records.jsonl"
    path.write_bytes(ONE.line() + b"\n" + line + b"\n")
    with pytest.raises(cm.DataError, match=r"must be a record; line 2 is (not JSON|no record of format 1)"):
        evaluation.read_records(path)
    with pytest.raises(cm.DataError, match=r"Records must be a file of JSON lines; .* is none"):
        evaluation.read_records(tmp_path / "nowhere")


@pytest.mark.parametrize("cut", [1, 40, -1])
def test_a_last_line_that_was_cut_is_gone_on_from(tmp_path, cut):
    path = tmp_path / "records.jsonl"
    other = replace(ONE, id=8)
    path.write_bytes(ONE.line() + b"\n" + other.line()[:cut])
    assert evaluation.read_records(path) == [ONE]
    with appending(path, is_whole) as add:
        add(other.line())
    assert evaluation.read_records(path) == [ONE, other]


def test_a_last_line_that_is_whole_is_kept(tmp_path):
    path = written(tmp_path / "records.jsonl", ONE, end=b"")
    with appending(path, is_whole) as add:
        add(replace(ONE, id=8).line())
    assert [each.id for each in evaluation.read_records(path)] == [7, 8]
    empty = tmp_path / "empty.jsonl"
    empty.write_bytes(ONE.line()[:-40] + b"x" * 200_000)
    with appending(empty, is_whole) as add:
        assert evaluation.read_records(empty) == []
        add(ONE.line())
    assert evaluation.read_records(empty) == [ONE]


@pytest.mark.parametrize("foreign", [b"hello", b"\xff\xd8\n\xff\x00", b'{"a": 1', b"hello\n", b"[]", b"{" * 9])
def test_a_file_of_another_kind_is_left_as_it_is(mllm, tmp_path, foreign):
    path = tmp_path / "precious"
    path.write_bytes(foreign)
    with pytest.raises(cm.DataError, match="must be a record; line 1 "):
        cm.evaluate(mllm, cm.data.read(HELDOUT)[:1], [evaluation.Unsteered()], path=path, progress=False)
    assert path.read_bytes() == foreign


def test_one_file_is_added_to_by_one(tmp_path):
    path = tmp_path / "records.jsonl"
    with appending(path, is_whole) as add, pytest.raises(cm.OutputError, match="another process adds to it"):
        add(ONE.line())
        with appending(path, is_whole):
            pass
    # Nothing is left open, and the next one may.
    with appending(path, is_whole):
        assert len(evaluation.read_records(path)) == 1
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(5):
        with pytest.raises(cm.OutputError, match="is a folder"), appending(tmp_path, is_whole):
            pass
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_full_disk_is_said(tmp_path, monkeypatch):
    path = tmp_path / "records.jsonl"
    with appending(path, is_whole) as add:
        monkeypatch.setattr(os, "fsync", lambda descriptor: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        with pytest.raises(cm.OutputError, match=r"No space left on device. What was there is whole"):
            add(ONE.line())


def test_what_a_full_disk_left_of_a_line_is_cut_off_before_the_next(tmp_path, monkeypatch):
    path, own = tmp_path / "records.jsonl", os.fsync
    with appending(path, is_whole) as add:
        add(ONE.line())
        monkeypatch.setattr(os, "fsync", lambda descriptor: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        with pytest.raises(cm.OutputError):
            add(replace(ONE, id=1).line())
        path.write_bytes(path.read_bytes()[:-30])
        monkeypatch.setattr(os, "fsync", own)
        add(replace(ONE, id=2).line())
    assert [each.id for each in evaluation.read_records(path)] == [ONE.id, 2]


def test_shards_are_put_together(tmp_path):
    paths = [written(tmp_path / f"{at}.jsonl", replace(ONE, id=at), replace(ONE, id=at + 10)) for at in range(3)]
    out, count = evaluation.merge(paths, tmp_path / "all.jsonl")
    assert count == 6
    assert {each.id for each in evaluation.read_records(out)} == {0, 1, 2, 10, 11, 12}
    # The same answer twice is one; an answer comes before an error; the last of a file counts.
    failed = replace(ONE, answer=None, ids=(), error={"kind": "ImageError", "message": "no image"})
    again = written(tmp_path / "again.jsonl", failed, ONE)
    error = written(tmp_path / "error.jsonl", failed)
    assert latest(evaluation.read_records(again)) == [ONE]
    for order in ([again, error], [error, again], [again, again]):
        assert evaluation.read_records(evaluation.merge(order, tmp_path / "all.jsonl")[0]) == [ONE]
    with pytest.raises(cm.DataError, match="there are two answers, 'a cat' and 'a dog'"):
        evaluation.merge([again, written(tmp_path / "dog.jsonl", replace(ONE, answer="a dog"))], tmp_path / "all.jsonl")
    with pytest.raises(cm.DataError, match="with another model or other settings"):
        evaluation.merge([again, written(tmp_path / "x.jsonl", replace(ONE, id=9, settings={}))], tmp_path / "all.jsonl")


@pytest.mark.parametrize(("until", "same"), [(0.0, True), (2.0, False)])
def test_a_setting_that_came_later_was_off_before(tmp_path, until, same):
    later = replace(ONE, id=9, settings=ONE.settings | {"until": until, "relative": False})
    paths = [written(tmp_path / f"{each.id}.jsonl", each) for each in (ONE, later)]
    for order in (paths, paths[::-1]):
        with nullcontext() if same else pytest.raises(cm.DataError, match="with another model or other settings"):
            assert evaluation.merge(order, tmp_path / "all.jsonl")[1] == 2
