"""What `Mllm.generate` gives back: the very tokens that were said, decoded as the run says, and no option ignored."""

import copy
import json
from threading import Thread
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import assert_same, snapshot
from real_tokenizers import BUILT, llava_of
from tests_support import noise
from transformers import GenerationConfig, LogitsProcessor, TextIteratorStreamer, TextStreamer

import cmllm_tools as cm
from cmllm_tools.analysis import relevancy
from cmllm_tools.analysis.attribution.token_mask import PresenceScore
from cmllm_tools.analysis.examples import Example
from cmllm_tools.analysis.window_sweep import _candidates
from cmllm_tools.bench.heldout import HELDOUT
from cmllm_tools.data.formats.roc import read_roc
from cmllm_tools.models.answer import Answer, said
from cmllm_tools.models.batch import answer_tokens, followed_by
from cmllm_tools.models.latent import LatentAdded
from cmllm_tools.models.scoring import AnswerScore, continuation
from cmllm_tools.referring.answer_file import saved_answer

STRONG = cm.ControlMLLMPlus(steps=3, contrast=2, contrast_cut=0.01)


@pytest.fixture(scope="module")
def latent(prompt):
    """The image turned around: what is at the top right is said to be at the bottom left."""
    states = prompt.call.visual_states
    return states.flip(0) - states


class Says(torch.nn.Module):
    """In the place of a model's head: in generation, the given tokens are the likeliest, one after another."""

    def __init__(self, head, ids):
        super().__init__()
        self.head, self.ids, self.said = head, ids, 0

    def forward(self, hidden):
        logits = self.head(hidden)
        if hidden.shape[1] == 1:
            logits[:, -1, self.ids[self.said]] += 1e4
            self.said = (self.said + 1) % len(self.ids)
        return logits


@pytest.fixture(params=BUILT)
def talker(request, monkeypatch):
    """A model that says a line break, a word that begins as none in a text would, and the half of a character."""
    mllm = cm.load(llava_of(BUILT[request.param]()))
    words = mllm.processor.tokenizer
    prompt = mllm.prepare(noise((40, 40)), "describe the object .")
    half = words("红", add_special_tokens=False)["input_ids"][:-1]
    ids = [*words("x\n", add_special_tokens=False)["input_ids"][-1:], words.convert_tokens_to_ids("s"), *half[-2:]]
    said = [*ids, words.eos_token_id]
    monkeypatch.setattr(mllm.model, "lm_head", Says(mllm.model.lm_head, said))
    return mllm, prompt, ids


def test_an_answer_knows_the_tokens_that_were_said(talker):
    mllm, prompt, ids = talker
    answer = mllm.generate(prompt)
    assert isinstance(answer, str)
    assert list(answer.ids) == ids
    assert answer == mllm.processor.tokenizer.decode(ids, skip_special_tokens=True).strip()
    # What the text alone would be cut into is something else.
    assert answer_tokens(mllm, str(answer)) != ids
    assert answer_tokens(mllm, answer) == answer_tokens(mllm, ids) == ids


def test_the_explorer_shows_the_tokens_that_were_said(talker):
    mllm, prompt, ids = talker
    explorer = cm.widgets.AttentionExplorer(mllm, prompt)
    longer = explorer.attention.prompt
    assert longer.inputs["input_ids"][0, len(prompt.tokens) :].tolist() == ids
    shown = [token["text"] for token in explorer.data["tokens"] if token["part"] == "answer"]
    assert shown == ["\n", "s", "\u00b7", "\u00b7"]
    explorer.queries = [len(prompt.tokens) + 1]
    assert explorer.map.words == ("s",)


def test_scores_are_of_the_tokens_that_were_said(talker):
    mllm, prompt, ids = talker
    answer = mllm.generate(prompt)
    zero = prompt.zero_latent().detach()[None]
    logits = mllm.model(**followed_by(mllm, prompt, ids).inputs).logits[0, -len(ids) - 1 : -1]
    expected = logits.log_softmax(-1).gather(-1, torch.tensor(ids)[:, None])[:, 0].detach()
    score = AnswerScore(mllm, prompt, answer)
    assert score.ids == ids
    assert score.answer == answer
    torch.testing.assert_close(score.tokens(zero)[0], expected)
    for own in (PresenceScore(mllm, prompt), PresenceScore(mllm, prompt, ids)):
        assert own.answer.ids == tuple(ids)
        assert own.present == pytest.approx(expected.sum().item(), rel=1e-4)
    # A sweep scores the model's own answer beside those that are given.
    example = Example(prompt.image, prompt.question, cm.Box(2, 2, 30, 30), "red", ("cross",))
    assert [each.ids for each in _candidates(mllm, prompt, example)[0]][-1] == ids
    # The first token said is explained, and not the first of the text.
    assert relevancy(mllm, prompt, answer).words == mllm.words(ids[:1])


def test_tokens_of_another_models_tokenizer_are_not_taken_for_ones_own(mllm, prompt, talker):
    other, asked, _ = talker
    answer = other.generate(asked)
    assert answer_tokens(mllm, answer) == answer_tokens(mllm, str(answer))


def test_an_answer_is_a_text_in_every_way(mllm, prompt):
    answer = mllm.generate(prompt)
    assert json.loads(json.dumps(answer)) == answer
    assert type(answer.lower()) is str
    for again in (copy.copy(answer), copy.deepcopy(answer)):
        assert (again, again.ids) == (answer, answer.ids)
    assert answer.ids == tuple(answer_tokens(mllm, str(answer)))
    assert mllm.words(answer.ids) == tuple(answer.split())


@pytest.mark.parametrize("answer", ["", [], None, 3, [1.5], [True], [10**9], [-1], Answer("")])
def test_what_is_no_answer(mllm, prompt, answer):
    with pytest.raises(cm.PromptError, match="answer"):
        AnswerScore(mllm, prompt, answer)


def test_a_placeholder_that_was_said_asks_for_no_image(mllm, prompt):
    image = mllm.image_token_id
    assert answer_tokens(mllm, [image, 50, image]) == [50]
    assert AnswerScore(mllm, prompt, Answer("cross", [image, 50])).ids == answer_tokens(mllm, "cross")


# Tokens one by one.


def test_each_piece_is_readable_and_knows_its_characters(talker):
    mllm, prompt, ids = talker
    answer = mllm.generate(prompt)
    assert [piece.id for piece in answer.pieces] == ids == list(answer.ids)
    assert tuple(piece.text for piece in answer.pieces) == mllm.words(ids)
    assert all(piece.text for piece in answer.pieces)
    # The line break before it is stripped; a character that is never whole is told as such.
    spans = [(piece.begin, piece.end) for piece in answer.pieces]
    assert spans[:2] == [(0, 0), (0, 1)]
    assert answer[0:1] == "s"
    assert all(low < high and not answer[low:high].strip("\ufffd") for low, high in spans[2:])
    assert spans[-1][1] == len(answer)


@pytest.mark.parametrize("name", BUILT)
@pytest.mark.parametrize("text", ["the red cat 's dog .\nis it\u00e9 ?", "\u00e9 cat \u7ea2\u7ea2 x\U0001f600y", "  a  b "])
def test_pieces_cover_the_text_in_order(name, text):
    words = llava_of(BUILT[name]())[1].tokenizer
    ids = [words.bos_token_id, *words(text, add_special_tokens=False)["input_ids"], words.eos_token_id]
    answer = said(words, ids, [words.eos_token_id], "end token")
    assert answer == text.strip() or name == "Unigram with bytes"
    assert answer.pieces[0].begin == answer.pieces[0].end == 0, "a special token is no part of the text"
    at = 0
    for piece in answer.pieces:
        assert piece.begin <= at or piece.begin == piece.end
        at = max(at, piece.end)
    assert at == len(answer)
    # All tokens that spell a character have it, and no other.
    for number, sign in enumerate(answer):
        having = [piece.id for piece in answer.pieces if piece.begin <= number < piece.end]
        # Sentencepiece leaves out a space that a text begins with.
        assert sign == " " or sign in words.decode(having, skip_special_tokens=True)
    assert answer.ended == "end token"


@pytest.mark.parametrize(
    "options",
    [{}, {"num_beams": 3}, {"do_sample": True, "temperature": 2.0}, {"repetition_penalty": 1.8}, {"use_cache": False}],
)
@pytest.mark.parametrize("steered", [False, True])
def test_the_log_probability_of_each_token_is_that_of_a_forward(mllm, prompt, latent, options, steered):
    latent = latent if steered else None
    answer = mllm.generate(prompt, latent, **options)
    expected = continuation(mllm, prompt, answer.ids, latent)
    assert answer.ids
    torch.testing.assert_close(torch.tensor(answer.log_probabilities), expected, atol=1e-4, rtol=1e-4)


def test_the_log_probability_with_a_contrast_is_that_of_both_branches(mllm, prompt, latent):
    found = LatentAdded(latent, contrast=cm.Contrast(0.7, 0.5))
    answer = mllm.generate(prompt, found)
    torch.testing.assert_close(
        torch.tensor(answer.log_probabilities), continuation(mllm, prompt, answer, found), atol=1e-4, rtol=1e-4
    )


def test_an_answer_says_why_it_ended(mllm, prompt, talker):
    assert mllm.generate(prompt).ended == mllm.generate(prompt, num_beams=2).ended == "end token"
    assert mllm.generate(prompt, max_new_tokens=2).ended == "length"
    assert mllm.generate(prompt, eos_token_id=mllm.generate(prompt).ids[0]).ended == "end token"
    assert mllm.generate(prompt, stopping_criteria=[lambda ids, scores, **_: torch.tensor([True])]).ended == "stopped"
    other, asked, _ = talker
    assert other.generate(asked, stop_strings=["s"]).ended == "stopped"
    assert Answer("red").ended == ""


def test_an_outcomes_answer_keeps_its_pieces_on_the_disk(mllm, prompt, box, tmp_path):
    outcome = cm.refer(mllm, prompt.image, "describe the object.", box, cm.methods.AttentionEdit())
    again = cm.Outcome.load(outcome.save(tmp_path / "outcome.safetensors")).answer
    assert outcome.answer.log_probabilities
    assert (again, again.ids, again.pieces, again.ended) == (
        outcome.answer,
        outcome.answer.ids,
        outcome.answer.pieces,
        outcome.answer.ended,
    )


@pytest.mark.parametrize("data", ["red cross", {"text": "red cross", "ids": [5, 6]}])
def test_answers_that_were_saved_without_pieces_still_open(data):
    answer = saved_answer(data, "an answer")
    assert (answer, answer.pieces, answer.ended, answer.log_probabilities) == ("red cross", (), "", ())
    assert answer.ids == (() if isinstance(data, str) else (5, 6))


@pytest.mark.parametrize(
    ("pieces", "message"),
    [
        ([["red", 0, 3, -1.0]], "a piece to each of its 2 tokens; it has 1"),
        ([["red", 0, 3, -1.0], ["cross", 4, 90, -1.0]], r"piece's place must be a whole number in 0\.\.9"),
        ([["red", 0, 3, -1.0], ["cross", 4, 9, 7.0]], "must be"),
        ([["red", 0, 3, -1.0], ["cross", 4]], "a text, two places and a log-probability"),
    ],
)
def test_an_answers_saved_pieces_are_checked(pieces, message):
    with pytest.raises(cm.DataError, match=message):
        saved_answer({"text": "red cross", "ids": [5, 6], "pieces": pieces}, "an answer")


# A run's own way of decoding.


@pytest.mark.slow
@pytest.mark.parametrize("number", [0, 1, 2, 3])
def test_a_run_is_answered_as_its_method_says(mllm, number):
    example = read_roc(HELDOUT)[number]
    prompt = mllm.prepare(example.image, "describe the object.")
    trace = cm.optimize(mllm, prompt, example.region("box"), STRONG, callbacks=[cm.Answers("ends")])
    told = trace.steps[-1].answer
    assert mllm.generate(prompt, trace) == mllm.generate(prompt, latent=trace) == told
    assert told == mllm.generate(prompt, trace.latent, cm.Contrast(2, 0.01))
    # A bare latent stays one, and the contrast can be switched off.
    assert mllm.generate(prompt, trace, 0) == mllm.generate(prompt, trace.latent)


@pytest.mark.slow
def test_a_run_is_answered_otherwise_without_its_contrast(mllm, prompt, box, monkeypatch):
    """The runs above may agree by chance: here they cannot."""
    trace = cm.optimize(mllm, prompt, box, cm.ControlMLLMPlus(steps=1, contrast=2))
    monkeypatch.setattr(cm.Contrast, "combine", lambda self, steered, plain: -steered)
    turned = mllm.generate(prompt, trace, max_new_tokens=4)
    assert turned != mllm.generate(prompt, trace.latent, max_new_tokens=4)
    run = cm.Steering(mllm, prompt, box, trace.method)
    assert len(list(run)) == 2
    assert run.answer().startswith(turned)
    assert cm.widgets.AttentionExplorer(mllm, prompt, latent=trace).answer.startswith(turned)


def test_a_run_is_answered_the_same_when_it_is_opened_again(mllm, prompt, box, tmp_path):
    trace = cm.optimize(mllm, prompt, box, STRONG, callbacks=[cm.Answers("ends")])
    again = cm.Trace.load(trace.save(tmp_path / "run.safetensors"))
    assert mllm.generate(prompt, again) == trace.steps[-1].answer == again.steps[-1].answer


def test_a_contrast_may_be_a_number(mllm, prompt, latent):
    assert mllm.generate(prompt, latent, 0) == mllm.generate(prompt, latent)
    for given in (0.7, np.float32(0.7), torch.tensor(0.7)):
        assert mllm.generate(prompt, latent, given) == mllm.generate(prompt, latent, cm.Contrast(0.7))


@pytest.mark.parametrize("contrast", [-1, float("nan"), float("inf"), "0.7", True, [1.0]])
def test_a_contrast_that_is_none(mllm, prompt, latent, contrast):
    with pytest.raises(
        cm.SettingsError, match=r"contrast, where it is no Contrast\(alpha, beta\), must be a finite number"
    ):
        mllm.generate(prompt, latent, contrast)
    with pytest.raises(cm.SettingsError, match="alpha"):
        cm.Contrast(contrast)


# Latents as they are given.


def test_a_latent_may_be_an_array(mllm, prompt, latent):
    steered = mllm.generate(prompt, latent, max_new_tokens=6)
    assert steered != mllm.generate(prompt, max_new_tokens=6)
    readonly = latent.numpy().copy()
    readonly.flags.writeable = False
    wide, parameter = latent.double(), torch.nn.Parameter(latent.clone())
    for given in (latent.numpy(), readonly, latent.numpy().astype(np.float64), wide, latent[None], parameter):
        assert mllm.generate(prompt, given, max_new_tokens=6) == steered
    assert mllm.generate(prompt, latent[None], 0.5) == mllm.generate(prompt, latent, 0.5)


@pytest.mark.parametrize("make", [torch.Tensor.numpy, lambda latent: latent], ids=["array", "tensor"])
def test_a_latent_that_is_not_finite(mllm, prompt, latent, make):
    broken = latent.clone()
    broken[3, 5] = torch.nan
    broken[4, 5] = torch.inf
    with pytest.raises(cm.CaptureError, match=r"must be finite; 2 of these 12288 values are not in torch\.float32"):
        mllm.generate(prompt, make(broken))


def test_a_latent_too_large_for_the_models_dtype(example):
    mllm = cm.load(dtype=torch.float16)
    prompt = mllm.prepare(example.image, "describe the object.")
    with pytest.raises(cm.CaptureError, match=r"must be finite; .* in torch\.float16"):
        mllm.generate(prompt, prompt.zero_latent().detach() + 1e6)


@pytest.mark.parametrize(
    "other", ["red", 3, [[0.0]], torch.zeros(64, 192, dtype=torch.bool), torch.zeros(64, 192).to_sparse()]
)
def test_what_is_no_latent(mllm, prompt, other):
    with pytest.raises(cm.CaptureError, match="must be a tensor or an array of numbers"):
        mllm.generate(prompt, other)


@pytest.mark.parametrize("shape", [(64,), (3, 4), (2, 64, 192), (64, 193)])
def test_a_latent_of_another_shape(mllm, prompt, shape):
    with pytest.raises(cm.CaptureError, match=r"\(visual token, width\) = \(64, 192\); got \("):
        mllm.generate(prompt, np.zeros(shape), 0.5)


# Options.


class Bans(LogitsProcessor):
    """Forbids a token, and keeps how many rows it saw."""

    def __init__(self, token):
        self.token, self.rows = token, []

    def __call__(self, input_ids, scores):
        self.rows.append((len(input_ids), len(scores)))
        return scores.index_fill(1, torch.tensor([self.token]), -torch.inf)


@pytest.mark.parametrize("contrast", [0, 0.7])
def test_a_users_logits_processor_is_kept(mllm, prompt, latent, contrast):
    plain = mllm.generate(prompt, latent, contrast, max_new_tokens=4)
    bans = Bans(plain.ids[0])
    answer = mllm.generate(prompt, latent, contrast, max_new_tokens=4, logits_processor=[bans])
    assert plain.ids[0] not in answer.ids
    assert set(bans.rows) == {(1, 1)}


def test_a_users_logits_processor_is_given_what_the_contrast_combined(mllm, prompt, latent):
    seen = []

    class Sees(LogitsProcessor):
        def __call__(self, input_ids, scores):
            seen.append(scores.clone())
            return scores

    mllm.generate(prompt, latent, cm.Contrast(2, 0.5), max_new_tokens=1, logits_processor=[Sees()])
    with torch.no_grad():
        rows = [mllm.model.lm_head(prompt.call.replay(each).last_hidden_state[0, -1]) for each in (latent, None)]
    torch.testing.assert_close(seen[0][0], cm.Contrast(2, 0.5).combine(*rows), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("contrast", [0, 0.7])
def test_a_streamer_tells_the_answer_once(mllm, prompt, latent, contrast, capsys):
    streamer = TextStreamer(mllm.processor.tokenizer, skip_prompt=True, skip_special_tokens=True)
    answer = mllm.generate(prompt, latent, contrast, streamer=streamer)
    assert capsys.readouterr().out.strip() == answer
    told = TextIteratorStreamer(mllm.processor.tokenizer, skip_prompt=True, skip_special_tokens=True)
    thread = Thread(target=mllm.generate, args=(prompt, latent, contrast), kwargs={"streamer": told})
    thread.start()
    assert "".join(told).strip() == answer
    thread.join()


def test_what_a_checkpoint_asks_for_changes_no_answer(mllm, prompt, latent, monkeypatch):
    plain, steered = mllm.generate(prompt), mllm.generate(prompt, latent, 0.7)
    asked = {"return_dict_in_generate": True, "output_scores": True, "num_return_sequences": 2, "num_beams": 2}
    asked |= {"do_sample": True, "prefill_chunk_size": 8, "prompt_lookup_num_tokens": 3, "guidance_scale": 2.0}
    monkeypatch.setattr(mllm.model, "generation_config", GenerationConfig(**mllm.model.generation_config.to_dict() | asked))
    assert mllm.generate(prompt) == plain
    assert mllm.generate(prompt, latent, 0.7) == steered


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("return_dict_in_generate", True, "text, ids and log-probabilities are what an Answer has"),
        ("output_scores", True, "log-probabilities are what an Answer has"),
        ("output_attentions", True, "capture_attention has attention"),
        ("num_return_sequences", 3, "call it several times with do_sample=True"),
        ("num_beam_groups", 2, "greedy, sampled, or searched for with plain beams"),
        ("penalty_alpha", 0.6, "greedy, sampled"),
        ("assistant_model", object(), "guessed tokens"),
        ("prompt_lookup_num_tokens", 3, "guessed tokens"),
        ("prefill_chunk_size", 16, "read in one piece"),
        ("guidance_scale", 2.0, "contrast= is what decodes"),
        ("custom_generate", "some/where", "no code from elsewhere"),
        ("generation_config", GenerationConfig(), "given by name"),
        ("max_length", 10, r"max_new_tokens=, which does not count the prompt"),
        ("inputs_embeds", torch.zeros(1, 3, 192), "those that `prepare` made"),
        ("input_ids", torch.zeros(1, 3, dtype=torch.long), "those that `prepare` made"),
        ("attention_mask", torch.ones(1, 73), "those that `prepare` made"),
        ("pixel_values", torch.zeros(1, 3, 192, 192), "those that `prepare` made"),
        ("past_key_values", (), "those that `prepare` made"),
    ],
)
def test_options_that_cannot_be_kept_are_refused_by_name(mllm, prompt, name, value, why):
    with pytest.raises(cm.SettingsError, match=rf"generate does not take {name}=: .*{why}"):
        mllm.generate(prompt, **{name: value})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_new_tokens": 1.5}, "max_new_tokens must be a whole number of at least 1; got 1.5"),
        ({"max_new_tokens": 0}, "max_new_tokens must be a whole number of at least 1; got 0"),
        ({"max_new_tokens": "12"}, "max_new_tokens must be a whole number"),
        ({"max_new_tokens": True}, "max_new_tokens must be a whole number"),
        ({"max_new_tokens": None}, "max_new_tokens must be a whole number"),
        ({"num_beams": 0}, "num_beams must be a whole number of at least 1"),
        ({"num_beams": 2.5}, "num_beams must be a whole number of at least 1"),
        ({"do_sample": 1}, "do_sample must be True or False"),
        ({"do_sample": True, "temperature": 0}, "temperature must be a finite number above 0"),
        ({"do_sample": True, "top_p": 5}, "top_p must be a finite number above 0 and at most 1"),
        ({"min_new_tokens": 9, "max_new_tokens": 3}, "min_new_tokens must be at most max_new_tokens; got 9 and 3"),
        ({"cache_implementation": "zebra"}, "ones that transformers takes: .*zebra"),
        ({"logits_processor": 3}, "logits_processor must be a list of objects that can be called"),
        ({"length_penalty": "long", "num_beams": 2}, "length_penalty must be a finite number"),
        ({"watermarking_config": 3}, "ones that transformers takes"),
        ({"sequence_bias": "zebra"}, r"could not answer with sequence_bias='zebra': .*Leave it out"),
        ({"forced_eos_token_id": "zebra"}, r"could not answer with forced_eos_token_id='zebra'"),
        ({"do_sample": True, "eta_cutoff": "zebra"}, r"could not answer with eta_cutoff='zebra'"),
        ({"is_assistant": True}, "generate does not take is_assistant="),
        ({"stopping_criteria": [3]}, "stopping_criteria must be a list of objects that can be called"),
        ({"beams": 3}, "An option of generate must be one of transformers' GenerationConfig .* got beams=3"),
        ({"_from_model_config": True}, "An option of generate must be one of"),
        (
            {"num_beams": 2, "streamer": SimpleNamespace(put=print, end=print)},
            "A streamer is told each token when it is chosen",
        ),
    ],
)
def test_options_out_of_range_or_at_odds(mllm, prompt, options, message):
    before = snapshot(mllm)
    with pytest.raises(cm.SettingsError, match=message):
        mllm.generate(prompt, **options)
    assert_same(before, snapshot(mllm))


def test_options_that_are_what_happens_anyway_are_taken(mllm, prompt):
    plain = mllm.generate(prompt)
    given = {"return_dict_in_generate": False, "num_return_sequences": 1, "assistant_model": None, "do_sample": False}
    assert mllm.generate(prompt, **given, num_beams=np.int64(1), temperature=None, suppress_tokens=None) == plain
    assert mllm.generate(prompt, max_new_tokens=np.int64(2)).ids == plain.ids[:2]


def test_a_text_may_end_the_answer(talker):
    mllm, prompt, ids = talker
    answer = mllm.generate(prompt, stop_strings=["s"])
    assert (answer, list(answer.ids)) == ("s", ids[:2])


@pytest.mark.parametrize("options", [{"num_beams": 2}, {"do_sample": True}])
def test_a_contrast_is_greedy(mllm, prompt, box, latent, options):
    with pytest.raises(cm.SettingsError, match="greedy: leave out num_beams and do_sample, or give contrast=0"):
        mllm.generate(prompt, latent, 0.5, **options)
    trace = cm.optimize(mllm, prompt, box, cm.ControlMLLMPlus(steps=1, contrast=0.5))
    with pytest.raises(cm.SettingsError, match="give contrast=0"):
        mllm.generate(prompt, trace, **options)
    assert mllm.generate(prompt, trace, contrast=0, **options)


def test_tokens_that_are_forbidden_stay_so_with_a_contrast(mllm, prompt, latent):
    plain = mllm.generate(prompt, latent, 0.7)
    answer = mllm.generate(prompt, latent, 0.7, suppress_tokens=[plain.ids[0]], min_new_tokens=12, max_new_tokens=12)
    assert plain.ids[0] not in answer.ids
    assert len(answer.ids) == 12


def test_several_copies_have_no_one_answer(mllm, prompt):
    from cmllm_tools.models.batch import copies

    with pytest.raises(cm.PromptError, match="An answer is given to one prompt; got 2 copies"):
        mllm.generate(copies(mllm, prompt, 2))


def test_an_error_of_the_callers_own_processor_is_the_callers(mllm, prompt):
    with pytest.raises(ZeroDivisionError):
        mllm.generate(prompt, logits_processor=[lambda ids, scores: scores / (1 // 0)])
    with pytest.raises(ValueError, match="mine"):
        mllm.generate(prompt, max_new_tokens=2, prefix_allowed_tokens_fn=_fails)


def _fails(batch, ids):
    raise ValueError("mine")


@pytest.mark.parametrize("contrast", [0, 0.5])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"logits_processor": [lambda ids, scores: None]}, r"scores of the shape that it is given, \(1, \d+\); got None"),
        ({"logits_processor": [lambda ids, scores: scores[:, :5]]}, r"got shape \(1, 5\)"),
        ({"prefix_allowed_tokens_fn": lambda batch, ids: []}, "at least one token to go on with; got none"),
        (
            {"prefix_allowed_tokens_fn": lambda batch, ids: [10**7]},
            r"prefix_allowed_tokens_fn gives must be .* in 0\.\.\d+",
        ),
        (
            {"prefix_allowed_tokens_fn": lambda batch, ids: None},
            "prefix_allowed_tokens_fn gives must be several whole numbers",
        ),
    ],
)
def test_what_a_callers_functions_give_back_is_read(mllm, prompt, options, message, contrast):
    """Five tokens' scores made an answer of other words, and the others raw errors from within transformers."""
    latent = prompt.zero_latent()
    with pytest.raises(cm.SettingsError, match=message):
        mllm.generate(prompt, latent, contrast=contrast, max_new_tokens=2, **options)
    same = {"logits_processor": [lambda ids, scores: scores * 1.0]}
    plain = mllm.generate(prompt, latent, contrast=contrast, max_new_tokens=2)
    assert mllm.generate(prompt, latent, contrast=contrast, max_new_tokens=2, **same) == plain


def test_fewer_log_probabilities_than_tokens_leave_an_answer_as_it_is(mllm, prompt):
    answer = mllm.generate(prompt)
    assert answer.weighed([-1.0]).pieces == answer.pieces
