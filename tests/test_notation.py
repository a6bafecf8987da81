"""Layers and updates are written one way."""

from cmllm_tools.notation import layers_text, number_ranges, updates_text, window_text


def test_ranges_name_both_ends():
    assert number_ranges((0, 1, 2, 3, 7)) == "0..3, 7"


def test_a_window_is_written_with_its_last_layer_and_its_length():
    assert window_text((0, 3)) == "layers 0..2 (3)"
    assert window_text((4, 5)) == "layer 4"
    assert layers_text((0, 2, 3)) == "layers 0, 2..3 (3)"


def test_updates():
    assert (updates_text(1), updates_text(10)) == ("1 update", "10 updates")
