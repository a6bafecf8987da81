"""The methods of the package, each declared and registered by its own module in this folder, and what another one needs."""

from importlib import import_module
from pkgutil import iter_modules

from .. import kinds as kinds
from ..latent_method import LatentMethod as LatentMethod
from ..method import Method as Method
from ..registry import METHODS
from ..registry import register as register
from ..settings import MODEL_DEFAULT as MODEL_DEFAULT
from ..settings import setting as setting

# ControlMLLM first, wherever methods are listed.
for _name in sorted((module.name for module in iter_modules(__path__)), key=lambda name: (name != "controlmllm", name)):
    import_module(f"{__name__}.{_name}")

globals().update(METHODS)
