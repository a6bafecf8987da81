"""Pictures made of words: what is drawn, and that `smol`'s language model reads it without eyes."""

import numpy as np
import pytest
import torch
from conftest import assert_same, snapshot

import cmllm_tools as cm
from cmllm_tools.bench.sentences import with_article
from cmllm_tools.bench.smol_sets import smol_names
from cmllm_tools.bench.word_pictures import CELL, _Reader


def pixels(image):
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)[None] / 127.5 - 1


def test_every_cell_is_read_as_its_word():
    names = [".", *smol_names()]
    cells = [[names[(number * 37 + row) % len(names)] for number in range(8)] for row in range(8)]
    read = _Reader(torch.arange(len(names))[:, None].float())(pixels(cm.bench.word_picture(cells))).last_hidden_state
    assert [names[int(each)] for each in read[0, :, 0]] == [word for row in cells for word in row]


def test_what_is_no_picture_of_words_is_refused():
    empty = [["."] * 8 for _ in range(8)]
    for cells, message in (
        (empty[:7], "8 rows of 8"),
        (["."] * 8, "several words"),
        ([["unicorn"] * 8] * 8, "Each word"),
        (3, "rows"),
    ):
        with pytest.raises(cm.ImageError, match=message):
            cm.bench.word_picture(cells)
    image = cm.bench.word_picture(empty)
    words = torch.zeros(276, 1)
    assert _Reader(words)(pixels(image)).last_hidden_state.shape == (1, 64, 1)
    # Away from the pixels that say which word it is, too: people would see it, and the model would not.
    for corner in ((0, 0), (5, 5)):
        other = image.copy()
        other.paste((200, 10, 30), (*corner, 20, 20))
        with pytest.raises(cm.ImageError, match="nothing drawn on it"):
            _Reader(words)(pixels(other))
    with pytest.raises(cm.ImageError, match="nothing drawn on it"):
        _Reader(words)(pixels(image.crop((0, 0, 48, 48))))


def test_scenes_are_the_same_for_a_seed_and_ask_of_both_things():
    scenes, again = cm.bench.word_scenes(20), cm.bench.word_scenes(20)
    assert (
        [each.data for each in scenes]
        == [each.data for each in again]
        != [each.data for each in cm.bench.word_scenes(20, 1)]
    )
    for scene in scenes:
        assert all(name in scene.question for name in scene.objects) and len(set(scene.objects)) == 2
        box = scene.region("box")
        assert (box.x1 - box.x0, box.y1 - box.y0) == (2 * CELL, 2 * CELL)
        for kind in ("mask", "scribble", "point"):
            x0, y0, x1, y1 = scene.example(kind).region.bounds
            assert box.x0 <= x0 <= x1 <= box.x1 and box.y0 <= y0 <= y1 <= box.y1
        example = scene.example()
        assert {example.answer, *example.alternatives} == set(scene.objects)
        assert with_article(example.answer) in example.question


@pytest.mark.slow
def test_the_language_model_reads_words_and_follows_the_region():
    smol = cm.load("smol")
    before = snapshot(smol)
    reader = cm.bench.word_reader(smol)
    scene = next(each for each in cm.bench.word_scenes(4) if each.names == ("apple",))
    prompt = reader.prepare(scene.image, scene.question)
    assert prompt.layout.grid == (8, 8)
    weights = smol.model.get_input_embeddings().weight
    wanted = smol.processor.tokenizer(" apple", add_special_tokens=False)["input_ids"]
    left, top = int(scene.region("box").x0) // CELL, int(scene.region("box").y0) // CELL
    assert torch.equal(prompt.call.states[0, prompt.visual[8 * top + left]], weights[wanted[0]])
    assert "camera" in reader.generate(prompt)
    outcome = cm.refer(reader, scene.image, scene.question, scene.region("box"), cm.methods.KeySteering(step_size=0.005))
    assert outcome.answer == "The thing in the picture is an apple."
    reader.model.train()
    reader.model.set_attn_implementation("eager")
    assert_same(before, snapshot(smol))
    assert reader.revision == smol.revision
    with pytest.raises(cm.UnsupportedModelError, match="got smol reading words"):
        cm.bench.word_reader(reader)
    own = cm.bench.smol_scene()
    assert "church" in smol.generate(smol.prepare(own.image, own.question))


def test_another_model_is_refused(mllm):
    with pytest.raises(cm.UnsupportedModelError, match=r"read by smol alone.*got embedded"):
        cm.bench.word_reader(mllm)
    with pytest.raises(cm.SettingsError, match="count"):
        cm.bench.word_scenes(-1)
