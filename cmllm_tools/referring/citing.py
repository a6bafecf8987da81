"""What to cite: BibTeX of this package, and of the methods and models that were used."""

import re
from functools import cache
from importlib.resources import files
from typing import Any

from ..errors import SettingsError
from ..models.mllm import Mllm
from ..models.sources import model_sources
from ..strict import shown
from ..version import VERSION
from .method import Method
from .outcome import Outcome
from .trace import Trace


def cite(*used: Any) -> str:
    """BibTeX of what was used: this package first, then the sources that methods declare, then those of models.

    A model whose paper is not known here is left out; its card says what to cite.

    Args:
        *used: methods or classes of them, models, and runs and outcomes, which have both.

    Raises:
        SettingsError: for anything else, and a method that declares a source which is not there.

    Examples:
        >>> said = cm.cite(cm.methods.RedCircle())
        >>> [line for line in said.splitlines() if line.startswith("@")]
        ['@software{cmllm_tools,', '@inproceedings{shtedritski2023redcircle,']
        >>> "2602.19505" in cm.cite(trace)
        True
    """
    methods: list[str] = []
    models: list[str] = []
    for each in used:
        if isinstance(each, Outcome | Trace):
            methods += each.method.sources()
            models += model_sources(each.provenance.model.get("name"), each.provenance.model.get("class"))
        elif isinstance(each, Mllm):
            models += model_sources(each.name, type(each.model).__name__)
        elif isinstance(each, Method):
            methods += each.sources()
        elif isinstance(each, type) and issubclass(each, Method):
            methods += each.source
        else:
            raise SettingsError(f"What is cited must be a method, a model, a run or an outcome; got {shown(each)}.")
    known = entries()
    keys = dict.fromkeys(["cmllm_tools", *methods, *models])
    if absent := [key for key in keys if key not in known and not key.startswith("@")]:
        raise SettingsError(
            f"A method's source must be a key of sources.bib, or an entry of BibTeX; got {', '.join(absent)}."
        )
    return "\n\n".join(known.get(key, key) for key in keys) + "\n"


def arxiv_number(key: str) -> str:
    """The number at arXiv of an entry of sources.bib; "" where it has none."""
    found = re.search(r"eprint\s*=\s*\{(.+?)\}", entries()[key])
    return "" if found is None else found.group(1)


@cache
def entries() -> dict[str, str]:
    """The entries of sources.bib by their keys."""
    text = files("cmllm_tools").joinpath("sources.bib").read_text(encoding="utf-8").replace("{VERSION}", f"{{{VERSION}}}")
    found = re.findall(r"^@\w+\{([^,]+),.*?^\}", text, re.M | re.S)
    parts = re.findall(r"^@.*?^\}", text, re.M | re.S)
    return dict(zip(found, parts, strict=True))
