"""Completion by the shell: a script that knows every command's options, so that a key press starts no Python.

To ask the program itself for each key, as Typer and click do, would load torch and transformers each time: the options of
`cmllm steer` are those that the methods declare.
"""

import argparse
import os
from pathlib import Path

# Of each shell that it can be installed for: where the script lies, what the shell reads at its start, and the line there.
_PLACES = {
    "bash": (".local/share/bash-completion/completions/cmllm", ".bashrc", "[ -f ~/{0} ] && source ~/{0}"),
    "zsh": (".zfunc/_cmllm", ".zshrc", "fpath=(~/.zfunc $fpath); autoload -Uz compinit; compinit"),
    "fish": (".config/fish/completions/cmllm.fish", None, ""),
}
SHELLS = {"show": ("bash", "zsh", "fish", "tcsh", "powershell"), "install": tuple(_PLACES)}
# What stands for a path among the arguments that may be something else too.
_PATHS = ("IMAGE", "SET", "IMAGE_OR_SET", "ID")


def chosen_shell(given: str | None, doing: str, parser: argparse.ArgumentParser) -> str:
    """The shell that was named, or the user's; another one ends the program."""
    known = SHELLS[doing]
    shell = given if given is not None else Path(os.environ.get("SHELL", "")).name
    if shell not in known:
        parser.error(f"argument --{doing}-completion: must be {', '.join(known[:-1])} or {known[-1]}; got {shell!r}")
    return shell


def completion_script(whole: argparse.ArgumentParser, shell: str) -> str:
    """What completes commands, options, their choices and files.

    Args:
        whole: a parser with every command's options, which is changed.
        shell: of `SHELLS["show"]`.
    """
    import shtab

    _mark(whole, shtab.FILE)
    return str(shtab.complete(whole, shell))


def install_completion(script: str, shell: str) -> list[Path]:
    """Put the script where the shell finds it.

    Returns:
        The files that were written: the script, and what the shell reads at its start, where it needs a line there.

    Raises:
        OutputError: when one of them cannot be written.
    """
    from ..files import make_folder, write_text, write_whole

    place, start, line = _PLACES[shell]
    path = make_folder((Path.home() / place).parent) / Path(place).name
    write_text(path, script)
    if start is None:
        return [path]
    read = Path.home() / start
    return [path, write_whole(read, lambda file: file.write(_with_line(read, line.format(place).encode())))]


def _with_line(path: Path, line: bytes) -> bytes:
    """What a file holds, and at its end a line that it lacks."""
    old = path.read_bytes() if path.exists() else b""
    if line in old.splitlines():
        return old
    return old + (b"" if not old or old.endswith(b"\n") else b"\n") + line + b"\n"


def _mark(parser: argparse.ArgumentParser, files: object) -> None:
    """Say which arguments are files, and which have words to choose from that are looked at later."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                _mark(command, files)
        elif action.type is Path or action.metavar in _PATHS:
            vars(action)["complete"] = files
        elif isinstance(action.metavar, str) and "|" in action.metavar:
            action.choices = [word for word in action.metavar.split("|") if " " not in word]
