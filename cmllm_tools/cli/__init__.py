"""The command line: `cmllm demo`, `steer`, `eval`, `heads`, `sweep`, `families`."""

import argparse
import os
import re
import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from io import TextIOWrapper
from typing import Any, NoReturn

from rich_argparse import RichHelpFormatter

from ..errors import CmllmError
from ..version import VERSION
from .commands import COMMANDS
from .completion import SHELLS, chosen_shell, completion_script, install_completion

# In a usage, for all options that may be left out.
_OPTIONS = argparse.Action(["OPTIONS"], "", nargs=0)


class _Help(RichHelpFormatter):
    group_name_formatter = str

    def add_usage(self, usage: str | None, actions: Any, groups: Any, prefix: str | None = None) -> None:
        """What must be given: every option is told below, and would fill the screen above an error."""
        required = [group for group in groups if group.required]
        either = [action for group in required for action in group._group_actions]
        needed = [each for each in actions if not each.option_strings or each.required or each in either]
        super().add_usage(usage, [_OPTIONS, *needed], required, prefix)


class _Parser(argparse.ArgumentParser):
    """Says of what is misspelt how it is spelt."""

    def error(self, message: str) -> NoReturn:
        # Not before: numpy comes with it, which help and version do without.
        from ..strict import nearest

        if unknown := re.search(r"unrecognized arguments: (\S+)", message):
            found = [each for action in self._actions for each in action.option_strings]
            for action in self._actions:
                if isinstance(action, argparse._SubParsersAction):
                    # Of the command that was given: the others have no options.
                    found += [option for parser in action.choices.values() for option in parser._option_string_actions]
            message += f".{nearest(unknown[1], found)}"
        elif wrong := re.search(r"invalid choice: '([^']*)' \(choose from (.*)\)", message):
            message += f".{nearest(wrong[1], [each.strip(chr(39)) for each in wrong[2].split(', ')])}"
        super().error(message)


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
    warnings.showwarning = lambda message, *_, **__: print(f"cmllm: warning: {message}", file=sys.stderr)
    try:
        options = _parser([command]).parse_args(given)
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
    parser = _Parser(
        prog="cmllm",
        description="See and steer where a multimodal language model looks.",
        formatter_class=_Help,
    )
    parser.add_argument("--version", action=_Told, nargs=0, help="print the version")
    parser.add_argument(
        "--install-completion",
        action=_Told,
        nargs="?",
        metavar="SHELL",
        help=f"let the shell complete commands, options and files: {', '.join(SHELLS['install'])} (default: yours)",
    )
    parser.add_argument(
        "--show-completion",
        "--print-completion",
        action=_Told,
        nargs="?",
        metavar="SHELL",
        help=f"print what does so: {', '.join(SHELLS['show'])}",
    )
    commands = parser.add_subparsers(title="commands", prog=parser.prog, required=True, metavar="COMMAND")
    for command, (module, summary) in COMMANDS.items():
        added = commands.add_parser(command, help=summary, description=summary, formatter_class=_Help)
        if command in loaded:
            import_module(f".{module}", __name__).COMMANDS[command](added)
    return parser


class _Told(argparse.Action):
    """Says what it is named after, and ends the program."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: Any, values: Any, option: str | None = None) -> None:
        if self.dest == "version":
            print(VERSION)
            parser.exit()
        doing = self.dest.partition("_")[0]
        shell = chosen_shell(values, doing, parser)
        script = completion_script(_parser(list(COMMANDS)), shell)
        if doing == "show":
            print(script, flush=True)
        else:
            for path in install_completion(script, shell):
                print(f"written   {path}")
            print("Completion works in shells that are started from now on.")
        parser.exit()
