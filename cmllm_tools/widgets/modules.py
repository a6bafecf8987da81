"""ES modules and style sheets as one text each: there is no build step, and a widget's module can import nothing.

The modules in `js/` are written, checked and tested as what they are; here an entry and all that it imports become one.
That rests on a few forms of import and export, and a module that has others is refused.

Python alone knows the colors (`show.palette`): one module, and the begin of each style sheet, are written here.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path

from ..show.palette import BLUE, LINE, ORANGE, RIM, SKY, VERMILION, YELLOW, hexadecimal

_FOLDER = Path(__file__).parent / "js"
_FORMS = (
    """`import { a, b } from "./other.js";`, `export const`, `export function` and, in the entry, `export default { a };`"""
)

_COLORS = {
    name: hexadecimal(color)
    for name, color in {
        "blue": BLUE,
        "vermilion": VERMILION,
        "sky": SKY,
        "orange": ORANGE,
        "yellow": YELLOW,
        "line": LINE,
        "rim": RIM,
    }.items()
}
# Texts that stand in for files, which say their types.
_WRITTEN = {"palette.js": f"export const PALETTE = {json.dumps(_COLORS)};\n"}

_NAMES = r"\{\s*(\w+(?:,\s*\w+)*),?\s*\}"
_IMPORT = re.compile(rf'^import {_NAMES} from "\./(\w+)\.js";\n', re.MULTILINE)
_IMPORT_OF_TYPES = re.compile(rf'^/\*\* @import {_NAMES} from "[\w@./-]+" \*/\n', re.MULTILINE)
_EXPORT = re.compile(r"^export (?=(?:const|(?:async )?function) (\w+))", re.MULTILINE)
_DEFAULT = re.compile(r"^export default \{[\w, ]+\};$", re.MULTILINE)
_OTHER = re.compile(r"^(?:import|export|/\*\* @import)\b.*", re.MULTILINE)
# What begins a line is at top level: the formatter indents all else.
_DEFINED = re.compile(r"^(?:const|let|class|(?:async )?function\*?) (\w+|[\[{][\w, ]+[\]}])", re.MULTILINE)


class ModuleError(Exception):
    """Modules of this package that cannot become one; the fault of who wrote them."""


@dataclass
class _Module:
    text: str
    imported: dict[str, list[str]]  # names by the module they are of
    exported: list[str]
    defined: list[str]  # at top level, exported or not


def script(entry: str, folder: Path = _FOLDER) -> str:
    """A module and all that it imports as one module that imports nothing.

    Args:
        entry: the name of its file, without `.js`.
        folder: that all of them are in.

    Raises:
        ModuleError: for a file or name that is imported and does not exist, another form of import or export, modules that
            import each other in a circle, and two that define the same name at top level.
    """
    modules: dict[str, _Module] = {}
    _collect(entry, folder, modules, ())
    owner: dict[str, str] = {}
    for name, module in modules.items():
        for defined in module.defined:
            if owner.setdefault(defined, name) != name:
                raise ModuleError(
                    f"Modules of one widget must define different names at top level; {owner[defined]}.js and {name}.js "
                    f"both define {defined}. Rename one, or import it."
                )
    return "\n".join(module.text for module in modules.values())


def style(*names: str) -> str:
    """Style sheets one after the other, by the names of their files without `.css`.

    A color of the palette is `var(--cmllm-color-blue)`.
    """
    colors = " ".join(f"--cmllm-color-{name}: {color};" for name, color in _COLORS.items())
    return f":root, :host {{ {colors} }}\n" + "".join(
        (_FOLDER / f"{name}.css").read_text(encoding="utf-8") for name in names
    )


def _collect(name: str, folder: Path, modules: dict[str, _Module], way: tuple[str, ...]) -> None:
    """Add a module to `modules`, after those that it imports; `way` leads from the entry to it."""
    if name in way:
        raise ModuleError(f"Modules must not import each other in a circle; got {' -> '.join((*way, name))}.")
    if name in modules:
        return
    module = _read(folder / f"{name}.js", entry=not way)
    for other, names in module.imported.items():
        _collect(other, folder, modules, (*way, name))
        missing = [one for one in names if one not in modules[other].exported]
        if missing:
            raise ModuleError(f"{name}.js imports {', '.join(missing)} from {other}.js, which does not export it.")
    modules[name] = module


def _read(path: Path, entry: bool) -> _Module:
    if not path.is_file():
        raise ModuleError(f"A module that is imported must be beside the others; there is no {path}.")
    text = _WRITTEN.get(path.name) or path.read_text(encoding="utf-8")
    imported = {other: re.findall(r"\w+", names) for names, other in _IMPORT.findall(text)}
    exported = _EXPORT.findall(text)
    for dropped in (_IMPORT, _IMPORT_OF_TYPES, _EXPORT):
        text = dropped.sub("", text)
    other = _OTHER.search(_DEFAULT.sub("", text) if entry else text)
    if other:
        raise ModuleError(f"A module may have {_FORMS}; {path.name} has: {other.group()}")
    defined = [name for names in _DEFINED.findall(text) for name in re.findall(r"\w+", names)]
    return _Module(text, imported, exported, defined)
