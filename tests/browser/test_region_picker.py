"""The picker's module in Chromium with mouse, touch and keys; the other end of its model is a real `RegionPicker`."""

import numpy as np
import pytest
from PIL import Image

import cmllm_tools as cm
from cmllm_tools.layout.visual_tokens import VisualTokenLayout, fixed_grid, grid_boxes

from .cell import Cell

pytestmark = pytest.mark.slow
# Of what the browser asks Python for: large photograph, small image shown magnified.
LARGE, SMALL = (1600, 1200), (192, 192)
NO_BOX = {"kind": "box", "corners": [3, 3, 3, 9]}


def scene(size):
    """Coloured areas with an edge at a known place; gradients as a photograph has them."""
    width, height = size
    y, x = np.mgrid[:height, :width]
    pixels = np.stack([90 + 120 * x / width, 110 + 80 * y / height, 150 - 60 * x / width], -1).astype(np.uint8)
    pixels[(x / width - 0.35) ** 2 + ((y / height - 0.4) * height / width) ** 2 < 0.02] = (200, 60, 50)
    pixels[(x > 0.6 * width) & (x < 0.85 * width) & (y > 0.5 * height) & (y < 0.8 * height)] = (60, 90, 190)
    return Image.fromarray(pixels)


class PickerCell(Cell):
    """A picker in a page."""

    def __init__(self, page, picker):
        super().__init__(page, picker)
        self.picker = picker
        page.wait_for_selector("[data-ready]")
        self.canvas = page.locator(".cmllm-drawing")

    def settled(self):
        super().settled()
        return self.picker.regions

    def at(self, x, y):
        """Where a pixel of the image is on the page."""
        frame = self.canvas.bounding_box()
        width, height = self.picker.image.size
        return frame["x"] + x * frame["width"] / width, frame["y"] + y * frame["height"] / height

    def choose(self, name):
        self.page.get_by_role("button", name=name, exact=True).click()

    def drag(self, *points, steps=8):
        mouse = self.page.mouse
        mouse.move(*self.at(*points[0]))
        mouse.down()
        for point in points[1:]:
            mouse.move(*self.at(*point), steps=steps)
        mouse.up()
        return self.settled()

    def tokens_drawn(self):
        """Of what is laid over the image for the tokens: the sum of its opacity, and the share that is dark."""
        return self.page.evaluate("opacity(document.querySelector('.cmllm-tokens'))")


@pytest.fixture
def show(browser):
    """Show a picker in a page of its own; afterwards the console was silent and nothing was asked of the net."""
    cells = []

    def cell(picker, **options):
        context = browser.new_context(viewport={"width": 800, "height": 760}, **options)
        cells.append(PickerCell(context.new_page(), picker))
        return cells[-1]

    yield cell
    for one in cells:
        assert one.problems == []
        assert one.requests == []
        one.page.context.close()


@pytest.fixture(params=[LARGE, SMALL], ids=["reduced", "magnified"])
def cell(show, request):
    return show(cm.widgets.RegionPicker(scene(request.param)))


def placed(cell, *shares):
    """Pixels of the image from shares of its sides."""
    width, height = cell.picker.image.size
    return [(x * width, y * height) for x, y in shares]


def disc_line(size, points, diameter):
    """The pixels that a brush covers, written out over the whole image."""
    width, height = size
    y, x = np.mgrid[:height, :width] + 0.5
    covered = np.zeros((height, width), bool)
    for (x0, y0), (x1, y1) in zip(points, [*points[1:], points[-1]], strict=True):
        dx, dy = x1 - x0, y1 - y0
        along = np.clip(((x - x0) * dx + (y - y0) * dy) / max(dx * dx + dy * dy, 1e-9), 0, 1)
        covered |= (x - x0 - along * dx) ** 2 + (y - y0 - along * dy) ** 2 <= (diameter / 2) ** 2
    return covered


def rim(pixels):
    """The pixels within about two of a change, which rounding may move."""
    from scipy.ndimage import binary_dilation, binary_erosion

    return binary_dilation(pixels, iterations=2) & ~binary_erosion(pixels, iterations=2)


def brush(cell):
    return float(cell.page.get_by_label("Brush size").input_value())


def test_width_on_screen(cell):
    frame = cell.canvas.bounding_box()
    assert frame["width"] == (640 if cell.picker.image.size == LARGE else 384)


def test_box(cell):
    first, last = placed(cell, (0.2, 0.3), (0.55, 0.7))
    (region,) = cell.drag(first, last)
    assert isinstance(region, cm.Box)
    assert np.abs(np.array([region.x0, region.y0, region.x1, region.y1]) - [*first, *last]).max() <= 2
    # From the opposite corner it is the same box, and beyond the image it ends at the edge.
    *_, region = cell.drag(last, first)
    assert np.abs(np.array([region.x0, region.y0, region.x1, region.y1]) - [*first, *last]).max() <= 2
    *_, region = cell.drag(first, placed(cell, (1.1, 1.05))[0])
    assert (region.x1, region.y1) == cell.picker.image.size
    assert "3 regions; last: box" in cell.text("status")


@pytest.mark.parametrize("beside", [8, 60], ids=["at the edge", "in the room beside it"])
def test_a_box_begun_outside_the_image_begins_at_its_edge(cell, beside):
    """Right of the image, where there may be room, and around it."""
    frame, mouse = cell.canvas.bounding_box(), cell.page.mouse
    width, height = cell.picker.image.size
    x, y = cell.at(0.4 * width, 0.4 * height)
    starts = {(frame["x"] + frame["width"] + beside, frame["y"] + 0.8 * frame["height"]): cm.Box}
    if beside < 12:
        starts |= {(frame["x"] - beside, frame["y"] - beside): cm.Box}
    for start in starts:
        mouse.move(*start)
        mouse.down()
        mouse.move(x, y, steps=6)
        mouse.up()
    regions = cell.settled()
    assert len(regions) == len(starts)
    found = np.array([[box.x0, box.y0, box.x1, box.y1] for box in regions])
    expected = [[0.4 * width, 0.4 * height, width, 0.8 * height], [0, 0, 0.4 * width, 0.4 * height]][: len(starts)]
    assert np.abs(found - expected).max() <= 2
    assert found[0, 2] == width


def test_a_line_begun_outside_the_image_begins_where_it_enters(cell):
    cell.choose("Scribble")
    width, height = cell.picker.image.size
    outside = (width * (1 + 8 / cell.canvas.bounding_box()["width"]), 0.2 * height)
    (region,) = cell.drag(outside, (0.5 * width, 0.2 * height), steps=40)
    points = np.array(region.points)
    assert points[0, 0] > 0.9 * width
    assert np.abs(points[:, 1] - 0.2 * height).max() <= 2
    # A point is where one clicks.
    cell.choose("Point")
    assert len(cell.drag(outside)) == 1


def test_a_mask_that_nobody_could_see_does_not_stay_after_erasing(cell):
    """Two of the image's pixels are left by the eraser; where as many were drawn on purpose, they stay."""
    width, height = cell.picker.image.size
    pixels = np.zeros((height, width), bool)
    pixels[height // 2, width // 2 - 1 : width // 2 + 1] = True
    cell.picker.region = cm.Mask(pixels)
    cell.push()
    cell.choose("Eraser")
    assert len(cell.drag(*placed(cell, (0.1, 0.1), (0.2, 0.1)))) == 1
    assert "there was none where it went" in cell.text("status")
    pixels[int(0.1 * height) - 3 : int(0.1 * height) + 3, int(0.1 * width) : int(0.2 * width)] = True
    cell.picker.region = cm.Mask(pixels)
    cell.push()
    assert cell.drag(*placed(cell, (0.08, 0.1), (0.22, 0.1))) == ()
    assert "no region" in cell.canvas.get_attribute("aria-label")


def test_what_is_said_below_the_image_moves_nothing(show):
    """Neither the columns beside the picker, nor what is below its messages; short words, long words, on a narrow image."""
    crop = fixed_grid((300, 900), (300, 900), (300, 300), (6, 6))
    cell = show(cm.widgets.RegionPicker(scene((300, 900)), layout=crop))

    def places():
        return cell.page.evaluate(
            "[...document.querySelectorAll('.cmllm-picker, .cmllm-picker summary')].map((part) =>"
            "{ const { right, top, bottom } = part.getBoundingClientRect(); return [right, top, bottom]; })"
        )

    before = places()
    cell.drag((20, 350), (280, 550))
    assert places() == before
    cell.drag((20, 100), (200, 400))
    assert "is lost" in cell.text("problem")
    assert places() == before
    cell.drag((20, 100), (20, 100))
    assert "two corners" in cell.text("problem")
    assert places() == before


def test_mask_brush_and_eraser(cell):
    cell.choose("Mask")
    line = placed(cell, (0.2, 0.3), (0.6, 0.5), (0.6, 0.7))
    (region,) = cell.drag(*line)
    expected = disc_line(cell.picker.image.size, line, brush(cell))
    assert isinstance(region, cm.Mask)
    assert not ((region.pixels != expected) & ~rim(expected)).any()
    second = placed(cell, (0.3, 0.8), (0.5, 0.8))
    (region,) = cell.drag(*second)  # joins the first
    expected |= disc_line(cell.picker.image.size, second, brush(cell))
    assert not ((region.pixels != expected) & ~rim(expected)).any()
    before = brush(cell)
    cell.keys("]", "]")
    assert brush(cell) > before
    cell.choose("Eraser")
    third = placed(cell, (0.4, 0.1), (0.4, 0.95))
    (region,) = cell.drag(*third)
    gone = disc_line(cell.picker.image.size, third, brush(cell))
    assert not ((region.pixels != (expected & ~gone)) & ~rim(expected) & ~rim(gone)).any()
    assert region.pixels.any()


def test_eraser_leaves_other_kinds_and_removes_an_empty_mask(cell):
    cell.drag(*placed(cell, (0.2, 0.2), (0.4, 0.4)))
    cell.choose("Mask")
    cell.drag(*placed(cell, (0.7, 0.7)))
    assert len(cell.picker.regions) == 2
    cell.choose("Eraser")
    assert len(cell.drag(*placed(cell, (0.1, 0.9), (0.2, 0.9)))) == 2
    assert "there was none where it went" in cell.text("status")
    cell.keys("]", "]", "]")
    (region,) = cell.drag(*placed(cell, (0.68, 0.7), (0.72, 0.7)))
    assert isinstance(region, cm.Box)


def test_scribble_and_point(cell):
    cell.choose("Scribble")
    line = placed(cell, (0.1, 0.2), (0.5, 0.2), (0.5, 0.8))
    (region,) = cell.drag(*line)
    assert isinstance(region, cm.Scribble)
    points = np.array(region.points)
    assert np.abs(points[[0, -1]] - [line[0], line[-1]]).max() <= 2
    on_first, on_second = np.abs(points[:, 1] - line[0][1]) <= 2, np.abs(points[:, 0] - line[1][0]) <= 2
    assert (on_first | on_second).all()
    assert len(points) >= 10
    cell.choose("Point")
    (at,) = placed(cell, (0.83, 0.21))
    *_, region = cell.drag(at)
    assert isinstance(region, cm.Point)
    assert np.abs(np.array([region.x, region.y]) - at).max() <= 2


def test_undo_clear_and_several_regions(cell):
    cell.drag(*placed(cell, (0.1, 0.1), (0.3, 0.3)))
    cell.choose("Mask")
    cell.drag(*placed(cell, (0.5, 0.5)))
    cell.choose("New mask")
    cell.drag(*placed(cell, (0.8, 0.8)))
    kinds = [type(region).__name__ for region in cell.picker.regions]
    assert kinds == ["Box", "Mask", "Mask"]
    cell.choose("Clear")
    assert cell.settled() == ()
    assert cell.page.get_by_role("button", name="Clear").is_disabled()
    cell.choose("Undo")
    assert [type(region).__name__ for region in cell.settled()] == kinds
    assert len(cell.keys("Control+z")) == 2
    assert len(cell.keys("Control+z")) == 1
    assert len(cell.keys("Control+z")) == 0
    assert cell.page.get_by_role("button", name="Undo").is_disabled()


def test_invalid_drawing_shows_the_words_of_the_error(cell):
    kept = cell.drag(*placed(cell, (0.1, 0.1), (0.3, 0.3)))
    for _ in range(2):
        cell.page.evaluate(
            "regions => { model.set('_regions', regions); model.save_changes(); }", [kept[0].to_json(), NO_BOX]
        )
        assert cell.settled() == kept
        assert "A box needs x0 < x1 and y0 < y1" in cell.text("problem")
        assert cell.page.evaluate("model.get('_regions').length") == 1
    assert len(cell.drag(*placed(cell, (0.5, 0.5), (0.6, 0.6)))) == 2
    assert cell.text("problem") == ""
    for tool in ("drag", "keys"):
        # A click, or Enter twice, is no box; what to do is said in the words of one who draws.
        both = cell.picker.regions
        assert (cell.drag(*placed(cell, (0.5, 0.5))) if tool == "drag" else cell.keys("Enter", "Enter", "Enter")) == both
        assert cell.text("problem").startswith("A box has two corners: drag from one to the other.")
        assert cell.page.evaluate("model.get('_error')") == ""
    cell.choose("Point")
    assert cell.text("problem") == ""
    # What was refused is no step to undo.
    assert cell.keys("Control+z") == kept
    assert cell.keys("Control+z") == ()


def test_set_from_python(cell):
    width, height = cell.picker.image.size
    drawn = cell.drag(*placed(cell, (0.1, 0.1), (0.3, 0.3)))
    exact = cm.Box(0.125, 1 / 3, width - 0.1, height)
    cell.picker.regions = (exact, cm.Point(width / 2, 3))
    cell.push()
    cell.settled()
    assert "2 regions; last: point" in cell.text("status")
    cell.choose("Point")
    *_, last = cell.drag(*placed(cell, (0.7, 0.7)))
    assert cell.picker.regions[0] is exact
    assert isinstance(last, cm.Point)
    assert len(cell.keys("Control+z")) == 2
    assert cell.keys("Control+z") == drawn


def test_keyboard_alone(cell):
    cell.keys("Tab")
    seen = []
    for _ in range(20):
        seen.append(cell.page.evaluate("document.activeElement.textContent || document.activeElement.ariaLabel"))
        if cell.page.evaluate("document.activeElement === document.querySelector('.cmllm-drawing')"):
            break
        cell.keys("Tab")
    assert seen[:5] == ["Box", "Mask", "Eraser", "Scribble", "Point"]
    assert "Image of" in seen[-1]
    assert cell.page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    width, height = cell.picker.image.size
    cell.keys("ArrowRight", *["Shift+ArrowLeft"] * 3)
    step = max(1, round(8 * width / cell.canvas.bounding_box()["width"]))
    left, top = width / 2 + step - 3, height / 2
    cell.keys("Enter", *["ArrowRight"] * 4, *["ArrowDown"] * 3)
    (region,) = cell.keys("Enter")
    assert region == cm.Box(left, top, left + 4 * step, top + 3 * step)
    cell.keys("p")
    *_, region = cell.keys("Space")
    assert region == cm.Point(left + 4 * step, top + 3 * step)
    cell.keys("s", "Enter", "ArrowUp", "ArrowLeft")
    *_, region = cell.keys("Enter")
    assert len(region.points) == 3
    cell.keys("m", "Enter", "ArrowUp")
    *_, region = cell.keys("Enter")
    assert isinstance(region, cm.Mask)
    assert len(cell.keys("Enter", "ArrowUp", "Escape")) == 4
    cell.keys("b", "e", "[", "]", "n")
    assert set(cell.page.evaluate("escaped")) <= {"Tab", "Shift", "n", "Control"}


def test_keys_of_others_pass(cell):
    cell.drag(*placed(cell, (0.1, 0.1), (0.3, 0.3)))
    cell.keys("Control+s", "a", "Enter")
    assert {"s", "a"} <= set(cell.page.evaluate("escaped"))
    assert "Enter" not in cell.page.evaluate("escaped")


def test_touch(show):
    cell = show(cm.widgets.RegionPicker(scene(LARGE)), has_touch=True)
    send = cell.page.context.new_cdp_session(cell.page).send

    def touch(kind, *points):
        places = [cell.at(*point) for point in points]
        send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [{"x": x, "y": y} for x, y in places]})

    first, middle, last = placed(cell, (0.2, 0.3), (0.4, 0.6), (0.6, 0.7))
    touch("touchStart", first)
    touch("touchMove", middle)
    touch("touchMove", last)
    touch("touchEnd")
    (region,) = cell.settled()
    assert np.abs(np.array([region.x0, region.y0, region.x1, region.y1]) - [*first, *last]).max() <= 2
    cell.choose("Point")
    cell.page.touchscreen.tap(*cell.at(*middle))
    *_, region = cell.settled()
    assert np.abs(np.array([region.x, region.y]) - middle).max() <= 2


def test_narrow_cell_keeps_pixels_exact(show):
    cell = show(cm.widgets.RegionPicker(scene(LARGE)))
    cell.page.set_viewport_size({"width": 380, "height": 700})
    cell.settled()
    assert cell.canvas.bounding_box()["width"] < 360
    first, last = placed(cell, (0.25, 0.3), (0.55, 0.75))
    (region,) = cell.drag(first, last)
    # A pixel of this screen is 4.6 of the image, and the mouse stops at fractions of it.
    assert np.abs(np.array([region.x0, region.y0, region.x1, region.y1]) - [*first, *last]).max() <= 2


def test_dense_screen(show):
    cell = show(cm.widgets.RegionPicker(scene(LARGE)), device_scale_factor=2)
    assert cell.canvas.bounding_box()["width"] == 640
    assert cell.canvas.get_attribute("width") == "1280"
    cell.choose("Mask")
    line = placed(cell, (0.25, 0.3), (0.55, 0.75))
    (region,) = cell.drag(*line)
    expected = disc_line(LARGE, line, brush(cell))
    assert not ((region.pixels != expected) & ~rim(expected)).any()


def test_stroke_on_a_large_photograph_is_taken_at_once(show):
    cell = show(cm.widgets.RegionPicker(scene((4000, 3000))))
    cell.choose("Mask")
    cell.drag(*placed(cell, (0.2, 0.2), (0.8, 0.8), (0.2, 0.8)))
    cell.page.evaluate(
        "() => { const canvas = document.querySelector('.cmllm-drawing'); const { onpointerup } = canvas; window.took = 0;"
        "canvas.onpointerup = (event) => { const start = performance.now(); onpointerup(event);"
        "window.took = performance.now() - start; }; }"
    )
    cell.drag(*placed(cell, (0.2, 0.5), (0.8, 0.5)))
    took = cell.page.evaluate("took")
    print(f"a stroke of 2400 px joined a mask of 12 megapixels in {took:.0f} ms")
    assert 0 < took < 500
    assert isinstance(cell.picker.region, cm.Mask)


def test_tokens_show_crop_and_tiles(show, pictures):
    crop = fixed_grid(LARGE, (448, 336), (336, 336), (24, 24))
    cell = show(cm.widgets.RegionPicker(scene(LARGE), layout=crop))
    untinted = cell.tokens_drawn()
    # What the crop leaves out is dark: an eighth of the width on each side, and the lines between tokens are light.
    assert untinted["dark"] == pytest.approx(0.25, abs=0.01)
    cell.drag((500, 350), (900, 700))
    assert cell.tokens_drawn()["sum"] > untinted["sum"]
    cell.page.screenshot(path=pictures / "picker-crop.png")
    assert cell.drag((5, 5), (100, 100)) == cell.picker.regions[:1]
    assert "outside what the model sees" in cell.text("problem")
    cell.drag((100, 800), (400, 1100))
    assert "is lost" in cell.text("problem")
    cell.page.screenshot(path=pictures / "picker-note.png")
    cell.page.get_by_label("visual tokens").uncheck()
    assert cell.tokens_drawn()["sum"] == 0


def test_pictures(show, pictures):
    whole = (0, 0, *LARGE)
    tiles = np.concatenate([grid_boxes(whole, (18, 24)), grid_boxes(whole, (6, 6))])
    layout = VisualTokenLayout(LARGE, tiles, (18, 24), "tiles", merged=True)
    cell = show(cm.widgets.RegionPicker(scene(LARGE), layout=layout))
    cell.drag((980, 620), (1350, 950))
    cell.choose("Scribble")
    cell.drag((420, 380), (560, 430), (640, 560), (560, 620))
    cell.choose("Point")
    cell.drag((300, 900))
    cell.choose("Mask")
    cell.drag((300, 250), (600, 300))
    for theme in ("light", "dark"):
        cell.page.evaluate("theme => document.body.classList.toggle('dark', theme === 'dark')", theme)
        cell.settled()
        cell.page.screenshot(path=pictures / f"picker-{theme}.png")
    assert all((pictures / f"picker-{theme}.png").stat().st_size > 10_000 for theme in ("light", "dark"))


def test_removed_view_hears_no_more(cell):
    cell.page.evaluate("remove()")
    assert cell.page.evaluate("Object.values(model.listeners).flat().length") == 0
