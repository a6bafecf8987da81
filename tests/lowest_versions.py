"""Print the lowest versions that pyproject.toml allows, as constraints: `make lowest`."""

import tomllib
from pathlib import Path

from packaging.requirements import Requirement


def lowest() -> list[str]:
    """`name==version.*` of each of the core's dependencies: the lowest release, with its own fixes."""
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text("utf-8"))["project"]
    found = []
    for line in project["dependencies"]:
        requirement = Requirement(line)
        (least,) = (each.version for each in requirement.specifier if each.operator == ">=")
        found.append(f"{requirement.name}=={least}.*")
    return found


if __name__ == "__main__":
    print("\n".join(lowest()))
