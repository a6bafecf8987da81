"""The command line: `cmllm demo`, `steer`, `eval`, `heads`, `sweep`, `families`."""

import argparse
import os
import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from io import TextIOWrapper
from typing import Any

from rich_argparse import RichHelpFormatter

from ..errors import CmllmError
from ..version import VERSION
from .commands import COMMANDS


class _Help(RichHelpFormatter):
    group_name_formatter = str


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
    command = next((word for word in given if not word.startswith("-")), "")
    options = _parser([command]).parse_args(given)
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


def _parser(loaded: Sequence[str]) -> argparse.ArgumentParser:
    """Parser with the options of some commands; the others, which would load what they run with, stand there by name."""
    parser = argparse.ArgumentParser(
        prog="cmllm",
        description="See and steer where a multimodal language model looks.",
        formatter_class=_Help,
    )
    parser.add_argument("--version", action="version", version=VERSION)
    parser.add_argument(
        "--print-completion", action=_Completion, metavar="SHELL", help=f"print what completes commands in {_SHELLS}"
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command, (module, summary) in COMMANDS.items():
        added = commands.add_parser(command, help=summary, description=summary, formatter_class=_Help)
        if command in loaded:
            import_module(f".{module}", __name__).COMMANDS[command](added)
    return parser


_SHELLS = "bash, zsh, fish, tcsh or powershell"


class _Completion(argparse.Action):
    """Prints a script with every command's options, for a shell to source."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: Any, values: Any, option: str | None = None) -> None:
        import shtab

        if values not in shtab.SUPPORTED_SHELLS:
            parser.error(f"argument {option}: must be {_SHELLS}; got {values!r}")
        print(shtab.complete(_parser(list(COMMANDS)), values))
        parser.exit()
