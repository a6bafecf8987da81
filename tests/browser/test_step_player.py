"""The player's page in a real browser: opened from disk, without a network, moved with mouse and keyboard."""

from copy import deepcopy
from pathlib import Path

import pytest

import cmllm_tools as cm

pytestmark = pytest.mark.slow

OUTPUT = Path(__file__).parents[2] / "test-output"


@pytest.fixture(scope="module")
def trace(mllm, prompt):
    """Steered to an object that the unsteered model does not name."""
    trace = cm.optimize(mllm, prompt, cm.Box(10, 20, 60, 90), cm.ControlMLLMPlus(steps=5), [cm.Answers()])
    assert trace.steps[0].answer != trace.steps[-1].answer
    return trace


@pytest.fixture(scope="module")
def file(trace, tmp_path_factory):
    from cmllm_tools.widgets.step_player import StepPlayer

    return StepPlayer(trace).write_html(tmp_path_factory.mktemp("player") / "player.html")


@pytest.fixture(params=["light", "dark"])
def page(request, browser, file):
    context = browser.new_context(color_scheme=request.param, viewport={"width": 1000, "height": 640}, offline=True)
    page = context.new_page()
    page.scheme = request.param
    complaints, requests = [], []
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda sent: requests.append(sent.url))
    page.goto(file.as_uri())
    page.wait_for_function("document.querySelector('.cmllm-player .answer')?.textContent")
    # The image is decoded from its data URI.
    page.wait_for_timeout(100)
    yield page
    context.close()
    assert complaints == []
    assert [url for url in requests if not url.startswith(("file:", "data:"))] == []


def shown(page):
    """What the player shows: step, answer, place of the cursor, the picture."""
    return page.evaluate(
        """() => {
            const find = (selector) => document.querySelector(".cmllm-player " + selector);
            return {
                step: Number(find("input").value),
                label: find(".label").textContent,
                answer: find(".answer").textContent,
                cursors: [...document.querySelectorAll(".cursor")].map((cursor) => Number(cursor.getAttribute("x1"))),
                picture: find("canvas").toDataURL(),
            };
        }"""
    )


def test_mouse_moves_picture_cursor_and_answer(page, trace):
    first = shown(page)
    assert (first["step"], first["label"], first["answer"]) == (0, "step 0 of 5", trace.steps[0].answer)
    slider = page.locator(".cmllm-player input").bounding_box()
    x, y = slider["x"], slider["y"] + slider["height"] / 2
    page.mouse.move(x + 8, y)
    page.mouse.down()
    page.mouse.move(x + slider["width"] - 4, y, steps=10)
    page.mouse.up()
    last = shown(page)
    assert (last["step"], last["label"], last["answer"]) == (5, "step 5 of 5", trace.steps[5].answer)
    assert last["picture"] != first["picture"]
    assert all(after > before for before, after in zip(first["cursors"], last["cursors"], strict=True))
    OUTPUT.mkdir(exist_ok=True)
    page.screenshot(path=OUTPUT / f"step_player_{page.scheme}.png")
    # The curves are a slider as well.
    chart = page.locator(".cmllm-player .chart.share").bounding_box()
    page.mouse.click(chart["x"] + chart["width"] * 0.12, chart["y"] + chart["height"] / 2)
    assert shown(page) == first


def test_keys_and_play(page):
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "play"
    for key, step in (("End", 5), ("ArrowLeft", 4), ("Home", 0), ("ArrowRight", 1), ("ArrowRight", 2)):
        page.keyboard.press(key)
        assert shown(page)["step"] == step
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowRight")
    assert shown(page)["step"] == 3
    page.keyboard.press("Home")
    page.keyboard.press("Space")
    assert page.locator(".play").text_content() == "Pause"
    page.wait_for_function("document.querySelector('.cmllm-player input').value === '5'")
    assert page.locator(".play").text_content() == "Play"
    page.locator(".play").click()
    page.wait_for_function("document.querySelector('.cmllm-player input').value === '2'")
    page.locator(".play").click()
    page.wait_for_timeout(900)
    assert shown(page)["step"] == 2


def test_map_is_the_trace_s(page, trace):
    """Under the mouse the player says what the map holds there."""
    canvas = page.locator(".cmllm-player canvas").bounding_box()
    percent = trace.steps[3].maps.mean(0).numpy().reshape(8, 8)
    percent = 100 * percent / percent.sum()
    page.locator(".cmllm-player .play").press("Home")
    for _ in range(3):
        page.locator(".cmllm-player .play").press("ArrowRight")
    for row, column in ((0, 0), (2, 1), (7, 6)):
        page.mouse.move(
            canvas["x"] + canvas["width"] * (column + 0.5) / 8, canvas["y"] + canvas["height"] * (row + 0.5) / 8
        )
        text = page.locator(".reading").text_content()
        assert float(text.split(": ")[1].split()[0]) == pytest.approx(percent[row, column], abs=0.011)


def test_layers(page, trace):
    layer = trace.layers[1]
    before = shown(page)["picture"]
    page.locator(".cmllm-player select").select_option(str(layer))
    assert shown(page)["picture"] != before
    share = trace.target.share(trace.steps[0].maps[1]).item()
    assert page.locator(".chart.share .title").nth(1).text_content() == f"{share:.1%}".replace("%", " %")
    page.screenshot(path=OUTPUT / f"step_player_layer_{page.scheme}.png")
    page.locator(".cmllm-player select").select_option("all")
    assert shown(page)["picture"] == before


def test_a_step_takes_under_50_ms(page):
    times = page.evaluate(
        """async () => {
            const slider = document.querySelector(".cmllm-player input");
            const frame = () => new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
            const times = [];
            for (let round = 0; round < 40; round++) {
                await frame();
                const started = performance.now();
                slider.value = round % 6;
                slider.dispatchEvent(new Event("input", { bubbles: true }));
                // Reading a pixel waits until the canvas is drawn.
                document.querySelector(".cmllm-player canvas").getContext("2d").getImageData(0, 0, 1, 1);
                const drawn = performance.now() - started;
                await frame();
                times.push([drawn, performance.now() - started]);
            }
            return times;
        }"""
    )
    drawn, painted = (sorted(values) for values in zip(*times, strict=True))
    print(f"drawn: median {drawn[20]:.1f}, largest {drawn[-1]:.1f} ms; with the frame: median {painted[20]:.1f} ms")
    assert drawn[-2] < 50
    assert painted[20] < 50


def test_hostile_text_stays_text(browser, trace, tmp_path):
    from cmllm_tools.widgets.step_player import StepPlayer

    hostile = deepcopy(trace)
    hostile.question = "</script><script>document.title = 'taken'</script>"
    hostile.steps[0].answer = "<img src=x onerror=\"document.title = 'taken'\">"
    page = browser.new_page(offline=True)
    page.goto(StepPlayer(hostile).write_html(tmp_path / "hostile.html").as_uri())
    page.wait_for_function("document.querySelector('.cmllm-player .answer')?.textContent")
    assert page.locator(".question").text_content() == page.title() == hostile.question
    assert page.locator(".answer").text_content() == hostile.steps[0].answer
    assert page.locator("img").count() == 0
    page.close()
