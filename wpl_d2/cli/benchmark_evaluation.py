"""What the segmentation metric of one image costs, beside Detectron2's `SemSegEvaluator` on the same predictions.

`wpl benchmark-evaluation [--height 1024 --width 2048 --classes 19]`; the last line is one JSON object. Both
evaluators take turns in one process, and each reads the mask from its PNG file. The network is not part of it, nor are
the numbers at the end of a data set and the files that `SemSegEvaluator` then writes. `ratio` is of the elapsed time,
`cpu_ratio` of the CPU time of all threads, which other programs on the machine hardly disturb.
"""

from __future__ import annotations

import argparse

from ..utils.command_line import positive_int
from ..utils.errors import InputError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("--height", type=positive_int, default=1024, help="of the image (default: 1024)")
    parser.add_argument("--width", type=positive_int, default=2048, help="of the image (default: 2048)")
    parser.add_argument("--classes", type=int, default=19, help="of the segmentation (default: 19)")
    parser.add_argument("--rounds", type=positive_int, default=7, help="measured turns of each (default: 7)")
    parser.add_argument("--threads", type=positive_int, help="CPU threads, by default PyTorch's own number")
    parser.add_argument("--device", default="cpu", help="where the predictions are: cpu (default) or cuda")


def main(args: argparse.Namespace) -> None:
    """Measure the segmentation metric."""
    import json

    import torch

    from ..benchmark.evaluation import compare_evaluators
    from ..config.validation import check_device
    from ..structures import IGNORE

    if not 2 <= args.classes < IGNORE:
        raise InputError(f"--classes: {args.classes}; take 2 to {IGNORE - 1}")
    check_device("--device", args.device)
    if args.threads:
        torch.set_num_threads(args.threads)
    result = {key: getattr(args, key) for key in ("height", "width", "classes", "rounds")}
    result |= {"threads": torch.get_num_threads(), "device": args.device}
    print(json.dumps(result | compare_evaluators(args.classes, args.height, args.width, args.rounds, args.device)))
