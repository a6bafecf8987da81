import json
import re
from dataclasses import replace

import pytest

import cmllm_tools as cm
from cmllm_tools.bench.heldout import HELDOUT
from cmllm_tools.cli import main
from cmllm_tools.evaluation import Evaluation, Record
from cmllm_tools.show.records import records_html

METHODS = {"unsteered": cm.evaluation.Unsteered(), "plus": cm.ControlMLLMPlus(steps=1)}


@pytest.fixture(scope="module")
def run(mllm):
    return cm.evaluate(mllm, cm.data.read(HELDOUT)[:4], METHODS, progress=False)


def data_of(html):
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', html, re.DOTALL)[1])


def test_the_page_has_every_answer_figure_and_difference(run):
    html = records_html(run, progress=False)
    data = data_of(html)
    assert data["methods"] == ["unsteered", "plus"]
    for at, example in enumerate(data["examples"]):
        assert [answer[0] for answer in example["answers"]] == [each.answer for each in run.records[2 * at : 2 * at + 2]]
        assert example["size"] == [192, 192]
        box = run.records[2 * at].region[0]
        assert example["lines"] == [[value for point in box.outline()[0] for value in point]]
        share = (box.x1 - box.x0) * (box.y1 - box.y0) / 192**2
        assert example["area"] == ("small" if share < 0.05 else "middle" if share < 0.25 else "large")
        assert example["answers"][0][5] is None
        small = run.records[2 * at + 1].attention
        assert example["answers"][1][5] == [8, 8, 0, 0, 192, 192, small["before"], small["after"]]
    assert len(data["ramp"]) == 16
    assert str(run.difference("plus", "unsteered")[0]) in html
    assert html.count('<img src="data:image/jpeg') == 4
    assert "http://" not in html.replace("http://www.w3.org/2000/svg", "")


def test_two_runs_stand_against_each_other(run, tmp_path, capsys):
    better = replace(run, records=tuple(replace(each, scores={"right": 1.0}) for each in run.records))
    html = records_html(run, better, progress=False)
    assert data_of(html)["methods"] == ["unsteered", "plus", "other: unsteered", "other: plus"]
    assert "plus against other: plus, right" in html
    with pytest.raises(cm.DataError, match="these have none in common"):
        records_html(run, replace(run, records=tuple(replace(each, id=f"x{each.id}") for each in run.records)))
    files = [tmp_path / f"{name}.jsonl" for name in ("one", "other")]
    for file, each in zip(files, (run, better), strict=True):
        file.write_bytes(b"".join(record.line() + b"\n" for record in each.records))
    assert main(["report", str(files[0]), "--against", str(files[1])]) == 0
    assert "one.html" in capsys.readouterr().out
    assert (tmp_path / "one.html").read_text(encoding="utf-8").count("other: plus") >= 2
    assert main(["report", str(files[0]), "--html", str(files[0])]) == 2
    assert "must not replace what is read" in capsys.readouterr().err


def test_what_is_gone_or_hostile_does_no_harm(run):
    evil = "</script><script>alert(1)</script>"
    records = (
        replace(run.records[0], image="/nowhere.png", question=evil, answer=evil, regions=({"kind": "star"},)),
        replace(run.records[1], image=None, answer=None, scores={}, error={"kind": evil, "message": evil}),
        Record(id="x", method="plus", settings={}, model=evil, error={"kind": "DataError", "message": "m"}),
    )
    html = records_html(Evaluation(records), progress=False)
    assert evil not in html
    first, last = data_of(html)["examples"]
    assert first["picture"] == -1
    assert first["lines"] == []
    assert last["answers"][1][3] == "DataError: m"
    with pytest.raises(cm.DataError, match="page of records is of an Evaluation"):
        records_html(records)
