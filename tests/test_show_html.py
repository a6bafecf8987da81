"""Cards, tables and bars as such."""

from cmllm_tools.show import html


def test_long_values_are_folded():
    page = html.card("x", [("text", "<" * (html.FOLD + 1)), ("short", "y")])
    assert page.count("<details>") == 1
    assert "&lt;" * (html.FOLD + 1) in page
    assert "<<" not in page


def test_bars():
    assert html.bar(0.0) == html.bar(0.001) == ""
    assert html.bar(0.5) != html.bar(1.0) == html.bar(7.0)
