"""Write the methods and their declared settings into docs/methods.md: `make methods`."""

from pathlib import Path

from cmllm_tools.referring.method import Method
from cmllm_tools.referring.registry import all_methods

ROOT = Path(__file__).parents[1]
HEAD = """# Ways of referring

Made from the methods' declarations by `make methods`. In Python a method is made by its class's name
(`cm.methods.NAME(...)`), on the command line by the one in parentheses (`cmllm steer --method`). What is left to the model
is a row of `cmllm_tools/referring/defaults.py`, or the published settings scaled to the model's depth.
"""


def section(method: type[Method]) -> str:
    """A method's heading, what it does, and a table of its settings."""
    said = (method.__doc__ or "").strip().split("\n\n")
    rows = [
        f"| `{each.name}` | {each.meaning} | {each.kind.range} | {each.default_text} |".replace("{", "&#123;")
        for each in method.settings()
    ]
    table = "\n".join(["| setting | meaning | values | default |", "|---|---|---|---|", *rows])
    name = method.called().lower().replace(" ", "-")
    prose = "\n\n".join(" ".join(part.split()) for part in said if not part.strip().startswith(("Raises", "Examples")))
    for variant, maker in method.variants.items():
        said = getattr(method, maker).__doc__.split("\n")[0].rstrip(".")
        called = f"`{variant}`, which is `{method.__name__}.{maker}(...)`"
        prose += f"\n\nOn the command line also {called}: {said[0].lower()}{said[1:]}."
    return f"\n## {method.__name__} ({name})\n\n{prose}\n\n{table}\n"


def page() -> str:
    """The page docs/methods.md."""
    own = (method for method in all_methods().values() if method.__module__.startswith("cmllm_tools."))
    return HEAD + "".join(map(section, own))


if __name__ == "__main__":
    (ROOT / "docs/methods.md").write_text(page(), encoding="utf-8")
