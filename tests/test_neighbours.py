import numpy as np
import pytest

from cmllm_tools.layout.neighbours import neighbourhoods
from cmllm_tools.layout.sheet import SheetLayout
from cmllm_tools.layout.visual_tokens import VisualTokenLayout, grid_boxes


def layout_of(boxes, grid, size=(96, 96), merged=False):
    return VisualTokenLayout(size, np.asarray(boxes, float), grid, "some rule", merged)


@pytest.mark.parametrize("grid", [(5, 7), (2, 2), (1, 4), (3, 1), (1, 1)])
def test_around_a_grids_cells_stands_what_a_mirrored_border_shows(grid):
    numbers = np.arange(grid[0] * grid[1]).reshape(grid)
    bordered = np.pad(numbers, 1, mode="reflect")
    expected = [bordered[row : row + 3, column : column + 3].ravel() for row in range(grid[0]) for column in range(grid[1])]
    found = neighbourhoods(layout_of(grid_boxes((3, 5, 90, 71), grid), grid))
    np.testing.assert_array_equal(found, expected)


def test_tiles_side_by_side_are_one_grid_and_the_thumbnail_another():
    left, right = grid_boxes((0, 0, 48, 96), (4, 2)), grid_boxes((48, 0, 96, 96), (4, 2))
    whole = grid_boxes((0, 0, 96, 96), (2, 2))
    layout = layout_of([*whole, *left, *right, (0, 0, 96, 96)], (4, 4), merged=True)
    found = neighbourhoods(layout)
    # The middle of the left tile's right column, and what is in the right tile beside it.
    centre = 4 + 3
    np.testing.assert_array_equal(found[centre], [4, 5, 12, 6, 7, 14, 8, 9, 16])
    assert set(found[:4].ravel()) == set(range(4))
    # A token that sees the whole image has none of its size beside it.
    assert (found[-1] == len(layout) - 1).all()


def test_tokens_of_several_images_have_none_of_the_other_beside_them():
    one, other = (layout_of(grid_boxes((0, 0, 96, 96), grid), grid) for grid in ((3, 3), (3, 3)))
    found = neighbourhoods(SheetLayout.of([one, other]))
    np.testing.assert_array_equal(found[:9], neighbourhoods(one))
    np.testing.assert_array_equal(found[9:], neighbourhoods(other) + 9)
