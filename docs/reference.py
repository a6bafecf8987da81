"""Write the reference's pages: every public name, from its docstring. Used by `docs/pages.py`."""

import inspect
from collections.abc import Iterator
from pathlib import Path

import cmllm_tools as cm
from cmllm_tools.referring.registry import all_methods

# Page -> what it is about, and which of `cm`'s own names it has. What is in no list fails the build.
PAGES = {
    "models": (
        "Models, images and prompts",
        "load Mllm Answer Prompt Look read_image read_video Video demo_scene self_check WeightsWarning",
    ),
    "regions": ("Regions, and where visual tokens look", "Box Mask Scribble Point VisualTokenLayout RegionWarning"),
    "attention": (
        "Attention and memory",
        "capture_attention Attention context_map ContextMap estimate_memory MemoryEstimate",
    ),
    "answers": ("While the answer is written", "trace_answer AnswerTrace lens Lens"),
    "energy": ("Energy", "energy region_share hard_energy soft_energy gaussian"),
    "steering": (
        "Steering step by step",
        "optimize Steering Trace Step ControlMLLM ControlMLLMPlus LatentMethod Callback Answers Checkpoint EarlyStopping "
        "ProgressBar EnergyWarning OutputWarning",
    ),
    "referring": (
        "Referring: one question, any method",
        "refer refer_each Outcome Answer Method Intervention LatentAdded AttentionBias Changing ChosenBy Contrast compare "
        "Comparison Baseline Effect controls Controls AnswerScore cite",
    ),
    "errors": (
        "Errors",
        "CmllmError CaptureError ClusterError DataError ImageError NotFiniteError OptimizationError OutputError "
        "PromptError RegionError SettingsError TraceError UnsupportedModelError",
    ),
}
ROOMS = {
    "methods": "Methods, and what one of your own is made with",
    "analysis": "Analysis: layers, heads, attribution",
    "causes": "Causes: attention forbidden, heads silenced, states put in",
    "figures": "Figures",
    "data": "Data sets",
    "evaluation": "Evaluation",
    "bench": "The embedded model's held-out scenes",
    "widgets": "Widgets",
}
# On a page of their own.
ELSEWHERE = {"causes", "methods", "figures", "evaluate", "Evaluation"}
# Without its own docstring.
GIVEN = (Path(__file__).parent / "given.py").read_text(encoding="utf-8").split("\n\n", 1)[1].strip()


def entries() -> dict[str, list[tuple[str, object]]]:
    """Each page's public names with their values, in the order of the page."""
    pages = {page: [(f"cm.{name}", getattr(cm, name)) for name in names.split()] for page, (_, names) in PAGES.items()}
    for room in ROOMS:
        module = getattr(cm, room)
        names = list(module.__all__)
        if room == "methods":
            names += [name for name, method in all_methods().items() if method.__module__.startswith("cmllm_tools.")]
        pages[room] = [(f"cm.{room}.{name}", getattr(module, name)) for name in names]
    placed = {name for names in pages.values() for name, _ in names}
    if absent := {f"cm.{name}" for name in set(cm.__all__) - ELSEWHERE} - placed:
        raise SystemExit(f"docs/reference.py: no page has {', '.join(sorted(absent))}.")
    return pages


def pages() -> Iterator[tuple[str, str, str]]:
    """Name, title and text of each page."""
    said: dict[int, tuple[str, str]] = {}
    for page, names in entries().items():
        title = PAGES[page][0] if page in PAGES else ROOMS[page]
        parts = [f"# {title}\n\nExamples start from [these lines](index.md#what-examples-start-from).\n"]
        if page in ROOMS and (about := inspect.getdoc(getattr(cm, page))):
            parts.append(about.split("Examples:")[0])
        for name, value in names:
            parts.append(_entry(name, value, said, page))
        yield page, title, "\n".join(parts)


def _entry(name: str, value: object, said: dict[int, tuple[str, str]], page: str) -> str:
    if not (inspect.isclass(value) or inspect.isroutine(value)):
        about = inspect.getdoc(value) if inspect.ismodule(value) else f"A constant: `{_short(value)}`."
        return f"## {name} {{ #{name} }}\n\n{(about or '').split('Examples:')[0]}\n"
    if id(value) in said:
        first, where = said[id(value)]
        link = f"#{first}" if where == page else f"{where}.md#{first}"
        return f"## {name} {{ #{name} }}\n\nThe same as [{first}]({link}).\n"
    said[id(value)] = (name, page)
    path = f"{value.__module__}.{value.__qualname__}"
    return f'<a id="{name}"></a>\n\n::: {path}\n    options:\n      heading: "{name}"\n      toc_label: "{name}"\n'


def _short(value: object) -> str:
    text = repr(value) if not isinstance(value, Path) else value.name
    return text if len(text) < 80 else f"{text[:77]}..."


def index() -> str:
    """The reference's first page: all names, and what their examples start from."""
    parts = ["# Reference\n\n`import cmllm_tools as cm`. Every public name, with an example that is run by the tests.\n"]
    for page, names in entries().items():
        title = PAGES[page][0] if page in PAGES else ROOMS[page]
        parts.append(f"- [{title}]({page}.md): " + ", ".join(f"[`{name}`]({page}.md#{name})" for name, _ in names))
    parts.append(f"\n## What examples start from\n\n```python\n{GIVEN}\n```\n")
    return "\n".join(parts)
