"""The `wpl` command. A module here is one command; torch and Detectron2 are imported when it runs, not for its help."""

import logging

from .main import COMMANDS, build_parser, main, run

# Torch's words to developers, which would be the first lines of every command; in each of a run's processes.
for _name in ("torch.utils.cpp_extension", "torch.fx._symbolic_trace"):
    logging.getLogger(_name).setLevel(logging.ERROR)

__all__ = ["COMMANDS", "build_parser", "main", "run"]
