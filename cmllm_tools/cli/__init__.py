"""The command line: `cmllm demo`, `steer`, `eval`, `heads`, `sweep`, `families`."""

import argparse
import os
import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from io import TextIOWrapper

from ..errors import CmllmError
from ..version import VERSION
from .commands import COMMANDS


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Returns:
        The exit status: 0, 2 for input that cannot be used, 130 after an interrupt, 141 when nobody reads the output any
        more.
    """
    for stream in (sys.stdout, sys.stderr):
        # A question may hold what the terminal's encoding has no sign for, or bytes that are none.
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    given = sys.argv[1:] if arguments is None else list(arguments)
    options = _parser(given).parse_args(given)
    warnings.showwarning = lambda message, *_, **__: print(f"cmllm: warning: {message}", file=sys.stderr)
    try:
        status = options.run(options)
        sys.stdout.flush()
        return int(status)
    except CmllmError as error:
        print(f"cmllm: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("cmllm: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # Who reads the output has seen enough, as `head` has; Python would complain once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141


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
