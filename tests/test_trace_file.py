"""Files of traces are checked when they are read: every byte, every type and shape, and sizes before anything is made."""

import json
import random
import tracemalloc

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tests_support import noise
from tiny_models import tiny_llava

import cmllm_tools as cm
from cmllm_tools.layout.sheet import sheet_size
from cmllm_tools.referring.trace_file import COPY_SIZE, VIDEO_COPY_SIZE, check_copy


@pytest.fixture(scope="module")
def trace():
    mllm = cm.load(tiny_llava())
    prompt = mllm.prepare(noise((50, 40)), "what is the red object ?")
    pixels = np.zeros((40, 50))
    pixels[5:30, 10:40] = 1
    return cm.optimize(mllm, prompt, [cm.Box(12, 5, 30, 30), cm.Mask(pixels)], cm.ControlMLLM(steps=1, early_stop=0.0))


@pytest.fixture(scope="module")
def file(trace, tmp_path_factory):
    return trace.save(tmp_path_factory.mktemp("trace") / "run.safetensors")


@pytest.fixture
def rewritten(file, tmp_path):
    """A file as earlier versions wrote it, without a hash, with the metadata or the tensors changed."""

    def write(change=lambda data: None, **tensors):
        with safe_open(file, "pt") as old:
            data = json.loads(old.metadata()["trace"])
        text = change(data)
        path = tmp_path / "changed"
        metadata = {"cmllm_trace": "1", "trace": text if isinstance(text, str) else json.dumps(data)}
        save_file(load_file(file) | tensors, path, metadata)
        return path

    return write


def test_no_flipped_byte_passes(file, tmp_path):
    data, path, rng = file.read_bytes(), tmp_path / "flipped", random.Random(0)
    header = 8 + int.from_bytes(data[:8], "little")
    places = [rng.randrange(len(data)) for _ in range(500)] + [rng.randrange(header) for _ in range(500)]
    for place in places:
        flipped = bytearray(data)
        flipped[place] ^= rng.choice([1 << rng.randrange(8), 255, rng.randrange(1, 256)])
        path.write_bytes(flipped)
        with pytest.raises(cm.TraceError):
            cm.Trace.load(path)


def test_a_hash_that_is_no_hash_is_noticed(file, tmp_path):
    data, path = file.read_bytes(), tmp_path / "flipped"
    start = data.index(b'"sha256":"') + 10
    for place in (start - 10, start - 3, start - 2, start - 1, start, start + 63, start + 64):
        path.write_bytes(data[:place] + b"G" + data[place + 1 :])
        with pytest.raises(cm.TraceError, match="cannot be read as a trace"):
            cm.Trace.load(path)


def test_files_of_earlier_versions_without_a_hash_still_open(trace, rewritten):
    again = cm.Trace.load(rewritten())
    assert again.table() == trace.table()
    assert again.regions == trace.regions
    assert np.array_equal(again.maps, trace.maps)


def test_a_file_cut_anywhere_is_no_trace(file, tmp_path):
    data, path, rng = file.read_bytes(), tmp_path / "cut", random.Random(1)
    for end in [0, 1, 7, 8, 9, *(rng.randrange(len(data)) for _ in range(60))]:
        path.write_bytes(data[:end])
        with pytest.raises(cm.TraceError, match="cannot be read as a trace"):
            cm.Trace.load(path)
    path.write_bytes((1 << 40).to_bytes(8, "little") + data[8:])
    with pytest.raises(cm.TraceError, match="does not begin as a safetensors file"):
        cm.Trace.load(path)


WRONG = [None, True, -1, 1.5, 10**400, "x", [], {}, [[1]], {"a": 1}, "half \ud800", [None], [True], ["x"], [-3]]


def test_every_entry_of_a_wrong_type_is_refused(trace, rewritten):
    """Each entry, and each of a step, a layout and a model, in turn replaced by each of many values."""
    fits = {("question", str), ("text", str), ("stopped", str), ("answer", str), ("rule", str), ("revision", str)}
    fits |= {(name, str) for name in ("name", "class", "dtype", "attention")}
    places = [(name,) for name in ("steps", "stopped", "method", "regions", "layout", "layers", "queries", "tokens")]
    places += [(name,) for name in ("question", "text", "image_hash", "model", "versions", "seed")]
    places += [("steps", 0, name) for name in ("number", "energy", "share", "latent_norm", "gradient_norm", "seconds")]
    places += [("layout", name) for name in ("image_size", "boxes", "grid", "rule", "merged")]
    places += [("regions", 0), ("regions", 0, "kind"), ("regions", 0, "corners"), ("regions", 1, "size")]
    places += [("regions", 1, "counts"), ("model", "name"), ("steps", 0)]
    allowed = {"answer": [None], "gradient_norm": [None, 1.5], "energy": [-1, 1.5], "share": [-1, 1.5], "seed": [-1]}
    allowed |= {"latent_norm": [1.5], "seconds": [-1, 1.5], "merged": [True], "queries": [[]], "tokens": [[], ["x"]]}
    allowed |= {"versions": [{}]}
    passed = []
    for *where, last in places:
        for value in WRONG:
            if (last, type(value)) in fits or value in allowed.get(last, []):
                continue

            def change(data, where=where, last=last, value=value):
                for name in where:
                    data = data[name]
                data[last] = value

            try:
                cm.Trace.load(rewritten(change))
                passed.append((*where, last, value))
            except cm.TraceError:
                pass
    assert passed == []


def test_entries_that_lack_or_that_nobody_knows_are_refused(rewritten):
    with pytest.raises(cm.TraceError, match="these differ: question"):
        cm.Trace.load(rewritten(lambda data: data.pop("question") and None))
    with pytest.raises(cm.TraceError, match="these differ: extra"):
        cm.Trace.load(rewritten(lambda data: data.update(extra=1) or None))
    with pytest.raises(cm.TraceError, match=r"steps\[0\] must have the entries"):
        cm.Trace.load(rewritten(lambda data: data["steps"][0].update(extra=1) or None))


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a": NaN}', "[]", "", "{", "null", '{"steps": Infinity}', "1" * 5000])
def test_metadata_that_are_no_data_are_refused(rewritten, text):
    with pytest.raises(cm.TraceError, match="cannot be read as a trace"):
        cm.Trace.load(rewritten(lambda _: text))


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        ({"maps": torch.zeros(2, 2, 16, dtype=torch.float64)}, "its maps must be F32 of 3 axes; they are F64"),
        ({"maps": torch.zeros(1, 4, 16)}, r"its maps must have shape \(step, layer, visual token\)"),
        ({"maps": torch.zeros(2, 4, 9)}, "its maps must have shape"),
        ({"latent": torch.zeros(3, 5)}, "its latent must have 16 visual tokens; it has 3"),
        ({"latent": torch.full((16, 5), torch.nan)}, "its latent must be finite"),
        ({"latent": torch.zeros(16, 0)}, "its latent must be F32 of 2 axes"),
        ({"image": torch.zeros(4, 4, 4, dtype=torch.uint8)}, "its image must be RGB"),
        ({"image": torch.zeros(1100, 4, 3, dtype=torch.uint8)}, "its image must be RGB of at most 1024 px a side"),
        ({"image": torch.zeros(4, 4, 3)}, "its image must be U8"),
        ({"more": torch.zeros(1)}, "its tensors must be maps, latent, image; they are image, latent, maps, more"),
    ],
)
def test_tensors_of_other_types_and_shapes_are_refused(rewritten, tensors, words):
    with pytest.raises(cm.TraceError, match=words):
        cm.Trace.load(rewritten(**tensors))


def test_the_picture_is_a_copy_of_the_layouts_image():
    """Whatever size Pillow gives a copy passes; that of a sheet whose images stood otherwise does not."""
    rng = random.Random(0)
    for size in [(rng.randrange(1, 4000), rng.randrange(1, 4000)) for _ in range(40)] + [(3000, 1), (1, 800), (512, 512)]:
        for most in (COPY_SIZE, VIDEO_COPY_SIZE):
            copy = Image.new("RGB", size)
            copy.thumbnail((most, most))
            check_copy((*copy.size[::-1], 3), size)
    for count in range(5, 12):
        # As they stood: all in one row, with what is between them.
        row = Image.new("RGB", (count * 120 + (count - 1) * 3, 90))
        for most in (COPY_SIZE, 1 << 20):
            row.thumbnail((most, most))
            with pytest.raises(
                cm.TraceError, match=r"must be a copy of that of its layout, .* more than four .* refer again"
            ):
                check_copy((*row.size[::-1], 3), sheet_size([(120, 90)] * count))


def test_a_trace_with_another_picture_than_its_layouts_is_refused(rewritten):
    cm.Trace.load(rewritten(image=torch.zeros(32, 40, 3, dtype=torch.uint8)))
    for height, width in ((40, 60), (40, 47), (80, 100)):
        with pytest.raises(cm.TraceError, match=rf"copy of that of its layout, 50 x 40 px; it has {width} x {height} px"):
            cm.Trace.load(rewritten(image=torch.zeros(height, width, 3, dtype=torch.uint8)))


def huge_mask(data):
    data["layout"]["image_size"] = [100_000, 100_000]
    data["regions"] = [{"kind": "mask", "size": [100_000, 100_000], "counts": [0, 10**10]}]


def many_masks(data):
    data["layout"]["image_size"] = [20_000, 20_000]
    data["regions"] = [{"kind": "mask", "size": [20_000, 20_000], "counts": [0, 4 * 10**8]}] * 3


def other_size(data):
    data["regions"] = [{"kind": "mask", "size": [100_000, 100_000], "counts": [0, 10**10]}]


def huge_grid(data):
    data["layout"] |= {"grid": [100_000, 100_000], "merged": True}


def overflowing_runs(data):
    data["regions"] = [{"kind": "mask", "size": [40, 50], "counts": [0, 2**63, -(2**63), 2000]}]


@pytest.mark.parametrize("change", [huge_mask, many_masks, other_size, huge_grid, overflowing_runs])
def test_a_few_bytes_do_not_become_gigabytes(rewritten, change):
    path = rewritten(change)
    tracemalloc.start()
    try:
        with pytest.raises(cm.TraceError, match="cannot be read as a trace"):
            cm.Trace.load(path)
        assert tracemalloc.get_traced_memory()[1] < 1e8
    finally:
        tracemalloc.stop()


def test_a_pipe_or_a_device_is_not_read(tmp_path):
    import os

    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", "/dev/zero", tmp_path, "nul\0byte", "half\ud800", "x" * 300):
        with pytest.raises(cm.TraceError, match=r"cannot be read as a trace|no trace at"):
            cm.Trace.load(path)


def test_numbers_of_numpy_are_saved_as_plain_ones(trace, tmp_path):
    trace.steps[0].energy, kept = np.float32(trace.steps[0].energy), trace.steps[0].energy
    try:
        assert cm.Trace.load(trace.save(tmp_path / "run")).steps[0].energy == kept
    finally:
        trace.steps[0].energy = kept


def test_what_could_not_be_read_again_is_not_saved(trace, tmp_path):
    kept = trace.steps[0].energy
    for value, words in ((float("nan"), "finite"), (object(), "plain")):
        trace.steps[0].energy = value
        with pytest.raises(cm.TraceError, match=words):
            trace.save(tmp_path / "run")
    trace.steps[0].energy = kept
    assert not list(tmp_path.iterdir())
