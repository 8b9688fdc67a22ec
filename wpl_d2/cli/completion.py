"""Print a script that completes `wpl` in a shell: put `eval "$(wpl completion bash)"` into ~/.bashrc."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("shell", choices=("bash", "zsh", "tcsh"))


def main(args: argparse.Namespace) -> None:
    """Print the script."""
    import shtab

    from .main import COMMANDS, load_command

    parser = argparse.ArgumentParser(prog="wpl")
    commands = parser.add_subparsers()
    for name, text in COMMANDS.items():
        command = commands.add_parser(name, help=text)
        load_command(name).add_arguments(command)
        for action in command._actions:
            if action.nargs != 0 and action.type in (None, Path) and not action.choices:
                action.complete = shtab.FILE  # type: ignore[attr-defined]
    print(shtab.complete(parser, args.shell))
