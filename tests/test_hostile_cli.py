"""Every option of the command line with hostile values: a status and a message of a few lines, never a traceback."""

import io
import json
import subprocess
import sys
import warnings
from contextlib import redirect_stderr, redirect_stdout
from itertools import count

import pytest
from hostile import EXAMPLES
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from cmllm_tools.cli import main
from cmllm_tools.referring.registry import all_methods

NUMBERS = ("nan", "-1", "0", "1e300", "-inf", "1" + 400 * "0", 5000 * "9", "1_0", "0x1", "float99", "1,2", "1:0", "1:2:3")
TEXTS = ("", " ", "\ud800", "a\0b", 5000 * "x", "\x1b[2J", "--", "{}", "~nobody/x", "data:image/png;base64,AAAA")
FILES = ("/dev/null", "/dev/full", "missing", "folder", "folder/config.json", "bad.json", "cut.safetensors", "picture.png")
VALUES = NUMBERS + TEXTS + FILES

STEER = ["steer", "picture.png", "describe the object.", "--point", "50", "50", "--steps", "1"]
COMPARE = ["compare", "picture.png", "describe the object.", "--point", "50", "50", "--methods", "crop"]
SWEEP = ["sweep", "picture.png", "what is this ?", "--point", "50", "50", "--steps", "1", "--contexts", "last"]
REPRODUCE = ["reproduce", "controlmllm", "--table", "roc", "--data", "folder"]
SETTINGS = {setting.name for method in all_methods().values() for setting in method.settings()}
METHOD = {"--method": 1} | {f"--{name.replace('_', '-')}": 1 for name in sorted(SETTINGS)}
SWEPT = ("--layers", "--queries")
MODEL = {"--model": 1, "--revision": 1, "--dtype": 1, "--device-map": 1, "--load-in-4bit": 0, "--trust-remote-code": 0}
SPREAD = {"--ray": 1, "--workers": 1, "--gpus-per-worker": 1}
REGION = {"--box": 4, "--mask": 1, "--scribble": 2, "--point": 2}
# What is right, and how many values each option takes; "" stands for one more argument.
COMMANDS = [
    (["demo", "--out", "out"], {"--out": 1, "--model": 1, "": 1}),
    (["assemble", "smol", "folder"], {"--weights": 1, "": 1}),
    (STEER, {"--out": 1, "--html": 1, "": 1} | METHOD | MODEL | REGION),
    (["steer"], {"": 2}),
    (STEER[:3], REGION),
    (COMPARE, {"--methods": 1, "--candidates": 2, "--text": 1, "--out": 1, "--html": 1, "": 1} | MODEL | REGION),
    (["compare"], {"": 2}),
    (["eval", "embedded", "--n", "1", "--skip", "499"], {"--skip": 1, "--json": 0, "": 1}),
    (["eval"], {"": 1}),
    (["heads", "embedded", "--n", "1"], {"--n": 1, "--skip": 1, "--region": 1, "--queries": 1, "--out": 1} | MODEL),
    (["heads", "embedded", "--n", "1"], {"--html": 1, "--resume": 1, "": 1, "--json": 0}),
    (["heads"], {"": 1}),
    (["sweep"], {"": 1}),
    # No set, as to sweep one takes minutes.
    (["sweep", "folder"], {"--n": 1, "--held-out": 1, "--windows": 1, "--region": 1, "--json": 0} | REGION),
    (["eval", "folder"], {"--format": 1, "--read": 1, "--split": 1, "--n": 1, "--skip": 1, "--json": 0} | MODEL),
    (
        ["eval", "folder"],
        {"--shuffle": 1, "--shard": 1, "--scorer": 1, "--judge": 1, "--max-new-tokens": 1, "--methods": 2},
    ),
    (["eval", "folder"], SPREAD | {"--batch": 1}),
    (["heads", "folder"], SPREAD | {"--shard": 1, "--strict": 0, "--retry": 0}),
    (["sweep", "folder"], SPREAD | {"--shard": 1, "--strict": 0, "--retry": 0}),
    (REPRODUCE, {"--table": 1, "--data": 1, "--regions": 1, "--preset": 1, "--n": 1, "--out": 1, "--json": 0} | MODEL),
    (["reproduce"], {"": 1}),
    (["eval", "folder"], {"--out": 1, "--strict": 0, "--retry": 0, "--effects": 0, "": 1}),
    (["data", "check", "folder"], {"--format": 1, "--read": 1, "--json": 0, "": 1}),
    (["data", "formats"], {"": 1}),
    (["records", "merge", "bad.json"], {"--out": 1, "": 1}),
    (["records", "show"], {"": 1}),
    (["report", "bad.json"], {"--against": 1, "--html": 1, "": 1}),
    (["families"], {"--json": 0, "--markdown": 0, "": 1}),
    ([], {"--version": 0, "--help": 0, "--show-completion": 1, "": 1}),
]


# Seconds each, where it is right.
LONG = [
    (
        SWEEP,
        {"--answer": 1, "--alternatives": 1, "--contexts": 1, "--resume": 1, "--html": 1, "": 1}
        | MODEL
        | {option: 1 for option in METHOD if option not in SWEPT},
    )
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, scene):
    folder = tmp_path_factory.mktemp("hostile")
    scene.image.save(folder / "picture.png")
    (folder / "folder").mkdir()
    (folder / "folder/config.json").write_text('{"model_type": ["llava"], "vision_config": 7}')
    (folder / "folder/question_roc.json").write_text('{"id": NaN}\n[')
    (folder / "bad.json").write_text(json.dumps({"model": [], "choices": {"a": None}, "sha256": 64 * "0"}))
    (folder / "cut.safetensors").write_bytes(b"\xff" * 9)
    return folder


def said(arguments):
    """Status, and what was printed to both streams as a terminal has them."""
    streams = [io.TextIOWrapper(io.BytesIO(), "utf-8") for _ in range(2)]
    with redirect_stdout(streams[0]), redirect_stderr(streams[1]), warnings.catch_warnings():
        try:
            status = main(arguments)
        except SystemExit as error:
            # As argparse ends a program.
            status = error.code
        for stream in streams:
            stream.flush()
    return status, *(stream.buffer.getvalue().decode() for stream in streams)


@pytest.mark.slow
@settings(
    max_examples=EXAMPLES or 25,
    derandomize=not EXAMPLES,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.generate],
)
@given(data=st.data())
def test_hostile_options_end_with_a_status_and_a_few_words(data, folder, monkeypatch):
    monkeypatch.chdir(folder)
    right, options = data.draw(st.sampled_from(COMMANDS))
    option = data.draw(st.sampled_from(list(options)))
    values = [data.draw(st.sampled_from(VALUES)) for _ in range(options[option])]
    check_said([*right, *([option] if option else []), *values])


def check_said(arguments):
    status, out, err = said(arguments)
    # 1 where a set is checked, and has faults.
    assert status in (0, 1, 2), (arguments, status)
    assert "Traceback" not in out + err
    if status == 2:
        # After the usage, which argparse prints first.
        told = err.partition("cmllm: ")[2] if "usage:" not in err else err.rpartition("error: ")[2]
        assert told.strip(), arguments
        assert len(told.splitlines()) <= 8, arguments


@pytest.mark.slow
@pytest.mark.parametrize(
    "right, options",
    [*COMMANDS, *(pytest.param(*each, marks=pytest.mark.slow) for each in LONG)],
    ids=count(),
)
def test_each_option_meets_hostile_values(right, options, folder, monkeypatch):
    """One after the other, so that no option is left to chance."""
    monkeypatch.chdir(folder)
    for place, (option, number) in enumerate(options.items()):
        values = [VALUES[(7 * place + 5 * at) % len(VALUES)] for at in range(number)]
        check_said([*right, *([option] if option else []), *values])


def test_every_option_is_tried():
    from cmllm_tools.cli import _parser
    from cmllm_tools.cli.commands import COMMANDS as NAMES

    known = set()
    for name in NAMES:
        commands = _parser([name])._subparsers._group_actions[0].choices
        known |= {(name, option) for action in commands[name]._actions for option in action.option_strings}
    tried = {(right[0], option) for right, options in [*COMMANDS, *LONG] if right for option in [*options, *right[1:]]}
    assert {(name, option) for name, option in known - tried if option not in ("-h", "--help")} == set()


@pytest.mark.slow
def test_output_that_nobody_reads_any_more_is_no_error():
    command = [sys.executable, "-m", "cmllm_tools.cli", "families", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        # Long before anything is written.
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 141


@pytest.mark.slow
def test_half_characters_are_printed_as_their_escapes(folder, monkeypatch):
    """As Python has a file's name whose bytes are no UTF-8."""
    monkeypatch.chdir(folder)
    status, out, _ = said([*STEER, "--out", "run\udcff.safetensors"])
    assert status == 0
    assert "run\\udcff.safetensors" in out
