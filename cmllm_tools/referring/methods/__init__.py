"""The methods of the package: each module in this folder declares and registers its own."""

from importlib import import_module
from pkgutil import iter_modules

# ControlMLLM first, wherever methods are listed.
for _name in sorted((module.name for module in iter_modules(__path__)), key=lambda name: (name != "controlmllm", name)):
    import_module(f"{__name__}.{_name}")
