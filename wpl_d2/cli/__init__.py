"""The `wpl` command. A module here is one command; torch and Detectron2 are imported when it runs, not for its help."""

from .main import COMMANDS, build_parser, main, run

__all__ = ["COMMANDS", "build_parser", "main", "run"]
