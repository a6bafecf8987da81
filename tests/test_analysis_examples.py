import pytest

import cmllm_tools as cm
from cmllm_tools.analysis.examples import as_examples


def test_examples_hold_what_they_were_given(example, box):
    given = cm.analysis.Example(example.image, example.question, box, "red circle", ("blue square",))
    assert as_examples(iter([given])) == [given]
    assert (given.answer, given.alternatives) == ("red circle", ("blue square",))


def test_what_is_no_example_is_refused(example):
    with pytest.raises(
        cm.DataError, match=r"must be an analysis\.Example\(image, question, region\); got ReferringExample"
    ):
        as_examples([example])
    with pytest.raises(cm.DataError, match="At least one example is needed; got none"):
        as_examples([])


def test_alternatives_need_an_answer(example, box):
    with pytest.raises(cm.DataError, match="beside a right one; 'Is the object"):
        cm.analysis.Example(example.image, example.question, box, None, ("blue square",))
