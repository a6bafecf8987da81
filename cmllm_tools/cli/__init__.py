"""The command line: `cmllm demo`, `steer`, `eval`, `heads`, `sweep`, `families`."""

import argparse
import sys
import warnings
from collections.abc import Sequence
from importlib import import_module

from ..errors import CmllmError
from ..version import VERSION
from .commands import COMMANDS


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status: 0, 2 for input that cannot be used, 130 after an interrupt."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    options = _parser(given).parse_args(given)
    warnings.showwarning = lambda message, *_, **__: print(f"cmllm: warning: {message}", file=sys.stderr)
    try:
        return options.run(options)
    except CmllmError as error:
        print(f"cmllm: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("cmllm: interrupted", file=sys.stderr)
        return 130


def _parser(given: Sequence[str]) -> argparse.ArgumentParser:
    """Parser of the command that was given; the others, which would load what they run with, stand there by name."""
    parser = argparse.ArgumentParser(prog="cmllm", description="See and steer where a multimodal language model looks.")
    parser.add_argument("--version", action="version", version=VERSION)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    name = next((word for word in given if not word.startswith("-")), "")
    for command, (module, summary) in COMMANDS.items():
        added = commands.add_parser(command, help=summary)
        if command == name:
            import_module(f".{module}", __name__).COMMANDS[command](added)
    return parser
