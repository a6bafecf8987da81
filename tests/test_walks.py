"""What CONTRIBUTING tells a newcomer to do, done: a family, a data set. (A method: test_refer; a view: test_show_views.)"""

import json
import textwrap
from importlib import import_module
from pathlib import Path

import pytest
import torch
from tests_support import noise
from tiny_models import tiny_llava
from transformers import LlavaConfig, LlavaForConditionalGeneration

import cmllm_tools as cm
from cmllm_tools import analysis
from cmllm_tools.data import format as formats
from cmllm_tools.layout.grid_rules import clip_grid
from cmllm_tools.models.families import FAMILIES
from cmllm_tools.models.family import PROJECTOR, Family

WALKS = ("Add a method", "Add a family", "Add a data set", "Add a view")


def test_each_walk_is_ten_lines_at_most():
    text = (Path(__file__).parents[1] / "CONTRIBUTING.md").read_text(encoding="utf-8")
    for walk in WALKS:
        lines = text.partition(f"## {walk}\n")[2].partition("\n## ")[0].strip().splitlines()
        assert 0 < len(lines) <= 10, walk


class ZebraConfig(LlavaConfig):
    model_type = "zebra"


class Zebra(LlavaForConditionalGeneration):
    config_class = ZebraConfig


def test_a_family_is_a_row(monkeypatch):
    like, processor = tiny_llava()
    config = ZebraConfig(**{name: value for name, value in like.config.to_dict().items() if name != "model_type"})
    model = Zebra(config).eval()
    model.load_state_dict(like.state_dict())
    with pytest.raises(cm.UnsupportedModelError, match="got model_type 'zebra'"):
        cm.load((model, processor))
    monkeypatch.setitem(FAMILIES, "zebra", Family("zebra", PROJECTOR, clip_grid))
    mllm, llava = cm.load((model, processor)), cm.load((like, processor))
    prompts = [each.prepare(noise((50, 40)), "what is this ?") for each in (mllm, llava)]
    assert cm.self_check(mllm).off < 1e-4
    assert (prompts[0].layout.boxes == prompts[1].layout.boxes).all()
    latents = [
        cm.optimize(each, prompt, cm.Box(10, 5, 30, 30), cm.ControlMLLMPlus(steps=2)).latent
        for each, prompt in zip((mllm, llava), prompts, strict=True)
    ]
    assert torch.equal(*latents)


READER = '''
from dataclasses import dataclass

import cmllm_tools as cm
from cmllm_tools.data.lines import below, checked, json_rows, words_of


@cm.data.register
@dataclass(frozen=True)
class Stripes(cm.data.Format):
    """JSON lines {"file", "ask", "answer", "xyxy"}."""

    name = "stripes"
    files = ("stripes.jsonl",)

    def rows(self, file):
        return json_rows(file, "id")

    def example(self, file, row):
        data = checked(row.data, {"file": words_of, "ask": words_of})
        return cm.data.Example(below(file.parent, data["file"]), data["ask"], cm.Box(*data["xyxy"]), data["answer"])
'''


def test_a_data_set_is_a_file(mllm, tmp_path, monkeypatch):
    monkeypatch.setattr(formats, "FORMATS", dict(cm.data.all_formats()))
    (tmp_path / "stripes.py").write_text(textwrap.dedent(READER), encoding="utf-8")
    lines = []
    for number, scene in enumerate(cm.bench.held_out()[:2]):
        scene.image.save(tmp_path / f"{number}.png")
        box = scene.region("box")
        corners = [box.x0, box.y0, box.x1, box.y1]
        lines.append({"file": f"{number}.png", "ask": scene.question, "answer": scene.names[0], "xyxy": corners})
    (tmp_path / "stripes.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    import_module("stripes")
    examples = cm.data.read(tmp_path)
    assert examples.ids == ("line 1", "line 2")
    ranking = analysis.rank_heads(mllm, examples, analysis.answer_words, progress=False)
    same = [each.example() for each in cm.bench.held_out()[:2]]
    assert (ranking.hits == analysis.rank_heads(mllm, same, analysis.answer_words, progress=False).hits).all()
    sweep = analysis.sweep_windows(mllm, examples, [(0, 3)], ["last"], cm.ControlMLLMPlus(steps=1), progress=False)
    assert len(sweep.examples) == 2
