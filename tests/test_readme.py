"""The README's snippets run as they are pasted, in order, in an empty folder, and show a change."""

import re
import shlex
from pathlib import Path

import pytest

from cmllm_tools.cli import _parser

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
SNIPPETS = re.findall(r"^```python\n(.*?)^```", README, re.M | re.S)


@pytest.mark.slow
def test_snippets_run_and_show_a_change(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert SNIPPETS
    names = {"__name__": "pasted"}
    for snippet in SNIPPETS:
        exec(compile(snippet, "README.md", "exec"), names)  # noqa: S102
    mllm, prompt, scene = names["mllm"], names["prompt"], names["scene"]
    before = mllm.generate(prompt)
    assert scene.names[0] in names["answer"]
    assert scene.names[0] not in before
    assert names["region"] == scene.region("box")
    # One answer against another, and not against itself.
    assert names["rather"].answer == before
    assert str(names["answer"]) in names["rather"].target
    # What stands beside a print is what it prints.
    said = re.findall(r"^print\(.*\)  # (.*)", "".join(SNIPPETS), re.M)
    assert said == [before, names["answer"]]
    assert (tmp_path / "run.safetensors").is_file()


def test_shell_lines_have_options_that_exist():
    lines = re.findall(r"^    (cmllm (?:.*\\\n)*.*)", README, re.M) + re.findall(r"`(cmllm [^`]+)`", README)
    assert len(lines) >= 5
    for line in lines:
        words = shlex.split(line.replace("\\\n", " "), comments=True)[1:]
        words = ["some/model" if word == "..." else word for word in words]
        assert _parser(words).parse_args(words).run
