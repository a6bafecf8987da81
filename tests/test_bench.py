import dataclasses
import json

import numpy as np
import pytest
from PIL import Image

import cmllm_tools as cm
from cmllm_tools.bench.matching import reference_match, strict_match
from cmllm_tools.bench.roc import read_roc
from cmllm_tools.models.embedded import HELDOUT
from cmllm_tools.models.embedded.heldout import DESCRIPTIONS, generate
from cmllm_tools.models.embedded.scenes import COLORS, KINDS


def test_heldout_set_is_in_the_public_format():
    questions, descriptions = read_roc(HELDOUT), read_roc(HELDOUT, DESCRIPTIONS)
    assert len(questions) == len(descriptions) >= 500
    for question, description in zip(questions[:60], descriptions[:60], strict=True):
        image = question.image
        assert image.size == (192, 192)
        mask, box = question.region("mask"), question.region("box")
        ys, xs = np.nonzero(mask.pixels)
        assert (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1) == (box.x0, box.y0, box.x1, box.y1)
        point = question.region("point")
        assert mask.pixels[int(point.y), int(point.x)]
        assert all(mask.pixels[int(y), int(x)] for x, y in question.region("scribble").points)
        color, kind = question.names[0].split()
        assert color in COLORS
        assert kind in KINDS
        assert question.names[0] in question.objects
        assert len(set(question.objects)) == len(question.objects) >= 2
        assert question.question.startswith("Is the object a ")
        assert question.names[0] in question.question
        assert description.question == "Describe the object."
        assert description.id == question.id
    with pytest.raises(cm.DataError, match="box, mask, scribble or point; got 'star'"):
        questions[0].region("star")


def test_heldout_set_is_what_its_command_makes(tmp_path):
    generate(tmp_path, count=3)
    for number, again in enumerate(read_roc(tmp_path)):
        shipped = read_roc(HELDOUT)[number]
        assert again.data == shipped.data
        assert np.array_equal(np.asarray(again.image), np.asarray(shipped.image))
        assert again.region("mask") == shipped.region("mask")


def test_damaged_sets_say_what_is_wrong(tmp_path):
    with pytest.raises(cm.DataError, match="there is no"):
        read_roc(tmp_path)
    file = tmp_path / "question_roc.json"
    file.write_text('{"id": 1}\n')
    with pytest.raises(cm.DataError, match="line 1 lacks image_path, text"):
        read_roc(tmp_path)
    file.write_text("{\n")
    with pytest.raises(cm.DataError, match="line 1 is not"):
        read_roc(tmp_path)


def test_foreign_sets_without_objects_are_read(tmp_path):
    (tmp_path / "image/val2017").mkdir(parents=True)
    Image.new("RGB", (30, 20)).save(tmp_path / "image/val2017/7.jpg")
    line = {
        "id": 7,
        "image_path": "LVIS/val2017/7.jpg",
        "text": "Is the object <location> a cat or a dog?",
        "name": "cat",
        "synonyms": ["house_cat"],
        "bbox": [1, 2, 3, 4],
        "seg_mask": "7.png",
        "center_point": [2, 3],
        "scribble": [[2, 3], [3, 4]],
    }
    (tmp_path / "question_roc.json").write_text(json.dumps(line) + "\n")
    (example,) = read_roc(tmp_path)
    assert example.question == "Is the object a cat or a dog?"
    assert example.names == ("cat", "house_cat")
    assert example.objects == ()
    assert example.region("box") == cm.Box(1, 2, 4, 6)
    assert example.image.size == (30, 20)


@pytest.mark.parametrize(
    ("answer", "reference", "strict"),
    [
        ("cat", True, True),
        ("It is a cat.", True, True),
        ("Cat", False, True),
        ("dog", False, False),
        ("a cat or a dog", True, False),
        ("It is a dog, not a cat.", False, False),
        ("It is not a dog, it is a cat.", True, False),
        ("catalogue", True, False),
        ("a house cat", True, True),
    ],
)
def test_matchers(answer, reference, strict):
    names, others = ["cat", "house_cat"], ["dog"]
    assert reference_match(answer, names) is reference
    assert strict_match(answer, names, others) is strict


def test_an_example_for_the_analyses_is_named_as_the_question_names_it(example):
    given = example.example("point")
    assert given.region == example.region("point")
    assert given.answer in given.question
    assert len(given.alternatives) == 1
    assert given.alternatives[0] in given.question
    synonym = dataclasses.replace(example, data=example.data | {"name": "gem_stone", "synonyms": [example.names[0]]})
    assert synonym.example().answer == example.names[0]
