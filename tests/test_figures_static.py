"""The static HTML that figures are stored with: what it says, and that the figures stay plotly's in all else."""

import copy
import html
import pickle
import re
import subprocess
import sys
from types import SimpleNamespace

import IPython.display
import numpy as np
import plotly.graph_objects
import plotly.io
import pytest
import torch

import cmllm_tools as cm
from cmllm_tools import figures
from cmllm_tools.analysis import Choice, Curves, HeadRanking, Sweep, head_shares, recommend, sinks_in
from cmllm_tools.analysis.frontier import Curve, Frontier
from cmllm_tools.causes import CauseGrid
from cmllm_tools.causes.answering import AnswerTrace
from cmllm_tools.causes.reading import Lens
from cmllm_tools.models.answer import Answer
from cmllm_tools.referring.comparison import Comparison, Row

HOSTILE = "<script>alert(1)</script>"
CONTEXTS = ("text", "last", (HOSTILE,))
JSON, HTML = "application/vnd.plotly.v1+json", "text/html"


@pytest.fixture(scope="module")
def trace(mllm, example, box):
    prompt = mllm.prepare(example.image, f"describe {HOSTILE}")
    trace = cm.optimize(mllm, prompt, box, cm.ControlMLLMPlus(steps=10))
    trace.steps[-1].answer = HOSTILE
    return trace


@pytest.fixture(scope="module")
def sweep():
    choices = [Choice((a, b), queries) for queries in CONTEXTS for b in range(1, 7) for a in range(b)]
    sweep = Sweep.empty(HOSTILE, cm.ControlMLLMPlus(), choices, ["0", "1"])
    sweep.values[:] = np.random.default_rng(0).random((1, len(choices), 2))
    return sweep


@pytest.fixture(scope="module")
def drawn(mllm, prompt, box, trace, sweep):
    """Each figure there is, some with hostile text."""
    attention = cm.capture_attention(mllm, prompt)
    cmap = cm.ContextMap(cm.context_map(attention).values, prompt.layout, (HOSTILE,))
    hits = np.arange(48).reshape(6, 8)
    ranking = HeadRanking(HOSTILE, tuple(range(6)), tuple(range(8)), 50, hits, 0.05, hits / 9, np.stack([hits, hits]))
    grid = head_shares(attention, box)
    scores = np.linspace([0, 1, 8], [1, 5, 2], 21).T
    maps = [(HOSTILE, cmap), ("signed", torch.linspace(-1, 2, 64)), ("c", cmap), ("d", cmap)]
    regions = {
        HOSTILE: box,
        "point": cm.Point(100, 80),
        "both": [box, cm.Point(20, 20)],
        "scribble": cm.Scribble([(9, 9), (150, 60)]),
    }
    lines = {
        HOSTILE: (range(31), np.linspace(0, 1, 31) ** 2),
        "other": (range(31), np.ones(31)),
        "third": ([0, 0.5], [None, 2]),
    }
    compared = Comparison(
        "m",
        HOSTILE,
        (box,),
        (192, 192),
        (HOSTILE, "other"),
        "text",
        (-1.0, -9.0),
        (Row("way", "a", (1.0, -1.0), 0.5, 0.1, 0.2),),
    )
    values = torch.full((2, 2, 1), 0.5)
    words = (((HOSTILE,), (HOSTILE,)),) * 2
    lens = Lens("logits", (0, 5), prompt.visual[:2], values.long(), values, words, prompt, HOSTILE)
    grid_of = CauseGrid(HOSTILE, "log-odds", (HOSTILE, "b"), np.ones((1, 2)), 0.0, ("0",), ("0", "1"))
    frontier_of = Frontier(HOSTILE, 3, "text", (Curve(HOSTILE, "step_size", (0.1, 0.2), np.ones((4, 2, 3))),))
    maps_of, shares = torch.ones(2, len(prompt.visual)), torch.ones(2, 1)
    said = AnswerTrace(
        Answer(HOSTILE, (1, 2)), (HOSTILE, "a"), maps_of, shares, values, (0,), (0,), prompt.layout, (box,), prompt.image
    )
    return {
        "answer_regions": figures.answer_regions(said),
        "before_after": figures.before_after(trace),
        "cause_grid": figures.cause_grid(grid_of),
        "comparison": figures.comparison(compared),
        "curves": figures.curves(lines, f"step {HOSTILE}", f"energy {HOSTILE}", f"The energy {HOSTILE}"),
        "energy_curve": figures.energy_curve(trace),
        "frontier": figures.frontier(frontier_of),
        "head_grid": figures.head_grid(grid, "over_chance"),
        "head_maps": figures.head_maps(attention),
        "head_ranking": figures.head_ranking(ranking),
        "insertion_deletion": figures.insertion_deletion(Curves(*scores, *np.zeros((2, 5, 21)), HOSTILE)),
        "layer_head_grid": figures.layer_head_grid(attention, box),
        "map_on_image": figures.map_on_image(cmap, prompt.image, box),
        "maps_on_image": figures.maps_on_image(maps, prompt.image, prompt.layout, box),
        "runs_side_by_side": figures.runs_side_by_side({HOSTILE: trace, "other": trace}),
        "sinks_on_image": figures.sinks_on_image(sinks_in([cmap, cmap], factor=2), prompt.image),
        "step_player": figures.step_player(trace),
        "token_weights": figures.token_weights(prompt.layout, prompt.image, regions),
        "visual_tokens": figures.visual_tokens(prompt.layout, prompt.image),
        "window_grid": figures.window_grid(sweep, "moved", recommend(sweep)),
        "words_by_token": figures.words_by_token(lens),
        "words_on_image": figures.words_on_image(lens),
    }


@pytest.fixture
def shown(monkeypatch):
    """Bundles that IPython was given to display."""
    bundles = []
    monkeypatch.setattr(IPython.display, "display", lambda bundle, raw: bundles.append(bundle))
    return bundles


@pytest.fixture
def as_in_jupyter(monkeypatch):
    monkeypatch.setattr(plotly.io.renderers, "default", "plotly_mimetype")


@pytest.mark.parametrize("name", figures.__all__)
def test_every_figure_is_stored_with_static_html(name, drawn, shown, as_in_jupyter):
    figure = drawn[name]
    figure._ipython_display_()
    figure.show()
    figure.show(config={"displaylogo": False})
    assert [set(bundle) for bundle in shown] == [{JSON, HTML}] * 3
    assert shown[2][JSON]["config"]["displaylogo"] is False
    assert shown[0][JSON]["data"]
    static = shown[0][HTML]
    assert static == figure._repr_html_()
    assert not re.search(r"<(script|style|link)|\son\w+=", static)
    assert all(source.startswith("data:image/") for source in re.findall(r'src="([^"]*)', static))
    assert len(static) < 120_000


@pytest.fixture
def published(monkeypatch):
    """Bundles that a shell published beside what it displayed."""
    bundles = []
    shell = SimpleNamespace(display_pub=SimpleNamespace(publish=bundles.append))
    monkeypatch.setattr(IPython, "get_ipython", lambda: shell)
    return bundles


def test_a_figure_of_pictures_is_shown_with_a_style_that_lets_it_grow_with_its_width(
    drawn, shown, published, as_in_jupyter
):
    copy.deepcopy(drawn["before_after"])._ipython_display_()
    drawn["curves"]._ipython_display_()
    (style,) = published
    least = drawn["before_after"].layout.height
    # Two panels of square pictures, each of half the width: 282 of 584 px on a page of 640, and 680 px high at most.
    wanted = f"calc({least}px + clamp(0px, 0.4829 * (100cqw - var(--jp-cell-prompt-width, 64px) - 640px), 398px))"
    assert f"{{ height: {wanted} }}" in style[HTML]
    assert len(shown) == 2
    own = copy.deepcopy(drawn["before_after"]).update_layout(height=300)
    own.show()
    assert len(published) == 1
    assert "height:300px" in own.to_html(include_plotlyjs=False)


def test_a_page_s_figure_of_pictures_grows_with_its_width(drawn):
    figure = drawn["map_on_image"]
    for full in (True, False):
        page = figure.to_html(include_plotlyjs=False, full_html=full)
        assert f"height:calc({figure.layout.height}px + clamp(0px, 0.7877 * (100cqw - 640px), 220px))" in page
        assert f'"height":{figure.layout.height},' not in page
        assert ("container-type" in page) != full
    assert f"height:{drawn['curves'].layout.height}px" in drawn["curves"].to_html(include_plotlyjs=False)


def test_text_is_escaped_in_static_html(drawn, as_in_jupyter):
    without_words = {"head_grid", "head_maps", "head_ranking", "layer_head_grid", "visual_tokens"}
    for name in set(figures.__all__) - without_words:
        assert "&lt;script&gt;alert(1)" in drawn[name]._repr_html_(), name


@pytest.mark.parametrize("renderer", ["notebook_connected", "plotly_mimetype+notebook_connected", "json", "browser", ""])
def test_another_renderer_is_left_alone(drawn, renderer, monkeypatch):
    monkeypatch.setattr(plotly.io.renderers, "default", renderer)
    figure = drawn["curves"]
    bundles = figure._repr_mimebundle_(), plotly.graph_objects.Figure._repr_mimebundle_(figure)
    # plotly gives each page's figure an id of its own.
    page, plain = (re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}", "", str(bundle)) for bundle in bundles)
    assert page == plain


def test_a_renderer_asked_for_is_used(drawn, shown, as_in_jupyter, monkeypatch):
    asked = []
    monkeypatch.setattr(plotly.io, "show", lambda figure, *args, **options: asked.append((figure, args, options)))
    drawn["curves"].show("browser", width=300)
    assert shown == []
    assert asked == [(drawn["curves"], ("browser",), {"width": 300})]


@pytest.mark.parametrize(
    "copied",
    [
        copy.copy,
        copy.deepcopy,
        lambda figure: pickle.loads(pickle.dumps(figure)),  # noqa: S301
    ],
)
def test_a_copy_keeps_figure_and_static_html(drawn, copied, as_in_jupyter):
    figure = drawn["step_player"]
    again = copied(figure)
    assert again.to_json() == copied(plotly.graph_objects.Figure(figure)).to_json()
    assert len(again.frames) == 11
    again.update_layout(title="other").add_scatter(y=[1], row=1, col=2)
    assert again._repr_html_() == figure._repr_html_()
    assert again.layout.title.text == "other" != figure.layout.title.text


def test_a_page_of_a_figure_needs_no_network(drawn, tmp_path):
    page = tmp_path / "player.html"
    drawn["step_player"].write_html(page)
    text = page.read_text(encoding="utf-8")
    assert not re.search(r'<(script|link|img)[^>]+(src|href)="?https?:', text)
    assert page.stat().st_size <= 6e6


def cells(figure):
    """Texts of the cells of the innermost tables of numbers."""
    rows = re.findall(r"<tr>(.*?)</tr>", figure._repr_html_().split("<thead>")[1])
    return [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row)[:-1] for row in rows]


@pytest.mark.filterwarnings("error")
def test_curves_hold_numbers_of_torch_and_numpy_as_pythons_own():
    values = torch.tensor([0.5, 0.25], requires_grad=True)
    figure = figures.curves({"a": (torch.arange(2), values), "b": (range(2), [np.float32(1), None])}, "T", "y")
    assert [list(line.x) for line in figure.data] == [[0, 1], [0, 1]]
    assert [list(line.y) for line in figure.data] == [[0.5, 0.25], [1, None]]


def test_curves_list_values_evenly_chosen(as_in_jupyter):
    head, *rows = cells(
        figures.curves({"a": (range(100), np.arange(100) / 3), "b": (range(100), torch.ones(100))}, "T", "y")
    )
    assert head == ["T", "a", "b"]
    assert len(rows) == 12
    for at, value, one in rows:
        assert (float(value), one) == (pytest.approx(int(at) / 3, rel=1e-3), "1")
    assert (rows[0][0], rows[-1][0]) == ("0", "99")
    assert np.ptp(np.diff([int(row[0]) for row in rows])) <= 1
    assert cells(figures.curves({"a": ([0, 1.5], [2, None])}, "T", "y")) == [["T", "a"], ["0", "2"], ["1.5", "-"]]
    assert figures.curves({"a": ([0, 1], [2, 3]), "b": ([0, 2], [2, 3])}, "T", "y")._repr_html_().count("<thead>") == 2


def test_the_windows_named_are_the_best(drawn, sweep, as_in_jupyter):
    static = drawn["window_grid"]._repr_html_()
    best = sweep.choices[sweep.figure("moved").mean(1).argmax()]
    assert html.unescape(re.search("layers [0-9][^<]*", static)[0]) == str(best)
    assert static.count("<img") == 3
    # The recommended window has a frame.
    pictures = zip(
        *(re.findall('src="([^"]*)"', one) for one in (static, figures.window_grid(sweep)._repr_html_())), strict=True
    )
    framed = [queries for (with_it, without), queries in zip(pictures, CONTEXTS, strict=True) if with_it != without]
    assert framed == [recommend(sweep).choice.queries]


def test_the_heads_named_are_the_best(drawn, as_in_jupyter):
    static = re.sub("<[^>]+>", " ", drawn["head_ranking"]._repr_html_())
    assert re.findall(r"layer (\d), head (\d) +(\d+)%", static)[:2] == [("5", "7", "94"), ("5", "6", "92")]


@pytest.mark.slow
def test_figures_load_plotly_only_when_drawn():
    code = "import sys, cmllm_tools.show.figures; print('plotly' in sys.modules)"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "False"
    )


def test_curves_show_intervals_also_in_their_static_copy():
    ends = np.array([[40.0, 60.0], [70.0, 95.0]])
    figure = figures.curves({"a": ([0, 1], np.array([50.0, 85.0]), ends), "b": ([0, 1], [1, 2])}, "T", "right, %")
    assert np.allclose(figure.data[0].error_y.array, [10, 10])
    assert np.allclose(figure.data[0].error_y.arrayminus, [10, 15])
    assert figure.data[1].error_y.array is None
    assert "85 (70 to 95)" in figure._static
    with pytest.raises(cm.SettingsError, match="intervals"):
        figures.curves({"a": ([0, 1], [50.0, 85.0], [1, 2])}, "T", "right, %")


def test_of_a_point_attention_is_counted_near_the_mark(mllm, prompt):
    """In words everywhere, as a point has no inside."""
    grid = head_shares(cm.capture_attention(mllm, prompt), cm.Point(20, 20))
    assert "share near mark" in repr(grid)
    for text in (grid._repr_html_(), figures.head_grid(grid).to_json()):
        assert "near" in text
        assert "in the region" not in text
    trace = cm.optimize(mllm, prompt, cm.Point(20, 20), cm.ControlMLLM(steps=1))
    assert "share near mark" in repr(trace)
