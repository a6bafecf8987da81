"""The command line: `cmllm demo`, `steer`, `eval`, `heads`, `sweep`, `families`."""

import argparse
import sys
import warnings
from collections.abc import Sequence

from ..errors import CmllmError
from ..version import VERSION
from . import families, measure, steer


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status: 0, 2 for input that cannot be used, 130 after an interrupt."""
    options = _parser().parse_args(arguments)
    warnings.showwarning = lambda message, *_, **__: print(f"cmllm: warning: {message}", file=sys.stderr)
    try:
        return options.run(options)
    except CmllmError as error:
        print(f"cmllm: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("cmllm: interrupted", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="cmllm", description="See and steer where a multimodal language model looks.")
    parser.add_argument("--version", action="version", version=VERSION)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for group in (steer, measure, families):
        group.add(commands)
    return parser
