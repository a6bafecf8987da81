import json
import os
import re
import stat
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from tests_support import noise
from tiny_models import tiny_llava

import cmllm_tools as cm
from cmllm_tools.files import check_writable


@pytest.fixture(scope="module")
def trace():
    mllm = cm.load(tiny_llava())
    prompt = mllm.prepare(noise((700, 600)), "what is the red object ?")
    pixels = np.zeros((600, 700))
    pixels[50:590, 60:640] = np.tri(540, 580)
    regions = [cm.Box(112, 105, 330, 300), cm.Mask(pixels), cm.Scribble([(300, 300), (310, 400)])]
    return cm.optimize(
        mllm, prompt, regions, cm.ControlMLLM(steps=2, layers=(1, 3), early_stop=0.0), callbacks=[cm.Answers("ends")]
    )


def test_round_trip(trace, tmp_path):
    again = cm.Trace.load(trace.save(tmp_path / "run.safetensors"))
    assert repr(again) == repr(trace)
    assert again.table() == trace.table()
    assert np.array_equal(again.maps, trace.maps)
    assert torch.equal(again.latent, trace.latent)
    assert again.regions == trace.regions
    assert again.method == trace.method
    assert np.array_equal(again.image, trace.image)
    for name in ("layers", "queries", "tokens", "question", "text", "image_hash", "model", "versions", "seed", "stopped"):
        assert getattr(again, name) == getattr(trace, name), name
    assert torch.equal(again.target.measures, trace.target.measures)


def test_what_is_needed_to_reproduce_is_there(trace):
    assert trace.image.shape[:2] == (439, 512)
    assert trace.model["class"] == "LlavaForConditionalGeneration"
    assert trace.versions["torch"] == torch.__version__.split("+")[0] or trace.versions["torch"] == torch.__version__
    assert {"python", "cmllm_tools", "transformers", "numpy"} <= set(trace.versions)
    assert len(trace.image_hash) == 64
    assert trace.maps.shape == (3, 2, 16)


def test_repr_and_table(trace):
    text = repr(trace)
    assert "2 updates, finished" in text
    assert "share in region" in text
    assert "'what is the red object ?'" in text
    assert trace.table().count("\n") == 3
    assert "energy" in repr(trace.steps[0])
    assert "gradient" not in repr(trace.steps[-1])


def test_file_holds_no_pickle_and_is_plain_safetensors(trace, tmp_path):
    path = trace.save(tmp_path / "run.safetensors")
    with safe_open(path, "pt") as file:
        assert set(file.keys()) == {"maps", "latent", "image"}
        assert json.loads(file.metadata()["trace"])["question"] == trace.question
    assert list(tmp_path.iterdir()) == [path]


def test_files_that_are_not_traces(trace, tmp_path):
    path = trace.save(tmp_path / "run.safetensors")
    data = path.read_bytes()
    (tmp_path / "cut").write_bytes(data[: len(data) // 2])
    (tmp_path / "text").write_text("hello")
    (tmp_path / "empty").write_bytes(b"")
    save_file({"a": torch.zeros(1)}, tmp_path / "foreign")
    save_file({"a": torch.zeros(1)}, tmp_path / "later", {"cmllm_trace": "99"})
    save_file({"maps": torch.zeros(1)}, tmp_path / "partial", {"cmllm_trace": "1", "trace": "{}"})
    for name in ("cut", "text", "empty", "partial"):
        with pytest.raises(cm.TraceError, match=f"{name} cannot be read as a trace"):
            cm.Trace.load(tmp_path / name)
    with pytest.raises(cm.TraceError, match="foreign is another safetensors file"):
        cm.Trace.load(tmp_path / "foreign")
    with pytest.raises(cm.TraceError, match="trace format 99; this version reads format 1"):
        cm.Trace.load(tmp_path / "later")
    with pytest.raises(cm.TraceError, match="There is no trace at"):
        cm.Trace.load(tmp_path / "nowhere")


def test_paths_that_cannot_be_written(trace, tmp_path):
    with pytest.raises(cm.OutputError, match="there is no"):
        trace.save(tmp_path / "no" / "run")
    with pytest.raises(cm.OutputError, match="is a folder"):
        check_writable(tmp_path)
    with pytest.raises(cm.OutputError, match="cannot be written"):
        check_writable("/proc/run.safetensors")
    assert not list(tmp_path.iterdir())


def test_failed_save_keeps_the_file_that_was_there(trace, tmp_path, monkeypatch):
    path = trace.save(tmp_path / "run.safetensors")
    before = path.read_bytes()

    def full(*_):
        raise OSError("disk full")

    monkeypatch.setattr("cmllm_tools.referring.tensor_file.save", full)
    with pytest.raises(cm.OutputError, match=r"disk full\. It is still in memory"):
        trace.save(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_trace_without_steps_is_not_saved(tmp_path):
    mllm = cm.load(tiny_llava())
    prompt = mllm.prepare(noise((50, 40)), "what is this ?")
    trace = cm.Steering(mllm, prompt, cm.Point(25, 20)).trace
    assert "no steps" in repr(trace)
    with pytest.raises(cm.TraceError, match="at least one step"):
        trace.save(tmp_path / "run")


def test_a_trace_has_the_permissions_of_other_files(trace, tmp_path):
    before = os.umask(0o022)
    try:
        assert stat.S_IMODE(trace.save(tmp_path / "run").stat().st_mode) == 0o644
    finally:
        os.umask(before)


@pytest.mark.parametrize(
    ("regions", "where"),
    [
        ([cm.Box(0, 0, 9, 9)], "in the region"),
        ([cm.Point(4, 4)], "near the mark"),
        ([cm.Scribble([(1, 1), (4, 4)]), cm.Point(4, 4)], "near the mark"),
        ([cm.Box(0, 0, 9, 9), cm.Point(4, 4)], "in the regions and near the marks"),
    ],
)
def test_attention_is_in_an_area_and_near_a_mark(trace, regions, where):
    drawn = replace(trace, regions=tuple(regions))
    found = re.findall(r"step \d+: \d+% ([a-z ]+)<", drawn._repr_html_())
    assert found == [where] * 2
    assert f"% {where}</td>" in drawn._repr_html_()
