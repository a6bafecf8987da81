"""ES modules and style sheets as one text each: there is no build step, and a widget's module can import nothing."""

from pathlib import Path

_HERE = Path(__file__).parent


def joined(*names: str) -> str:
    """The files of this folder one after the other, such as `keys.js` and then the module that uses it."""
    return "".join((_HERE / name).read_text(encoding="utf-8") for name in names)
