"""Write frames of videos as images, to train on without labels.

Every n-th frame becomes DIR/VIDEO_NUMBER.jpg, unless it hardly differs from the one that was written before it. Frames
of a video have its name, by which `wpl init` keeps them together when it holds images out for validation. The exit
status is 1 if a video cannot be read, or breaks off.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ..utils.command_line import fraction, positive_int


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("videos", nargs="+", type=Path, metavar="VIDEO")
    parser.add_argument("--output", required=True, type=Path, metavar="DIR", help="folder for the images")
    parser.add_argument("--every", type=positive_int, default=30, metavar="N", help="default: each 30th frame")
    parser.add_argument(
        "--min-change",
        type=fraction,
        default=0.02,
        metavar="SHARE",
        help="leave out what differs less from the image before: the mean difference of 32x32 gray pixels, as a share "
        "of white (default: 0.02; 0 keeps all)",
    )


def main(args: argparse.Namespace) -> int:
    """Write frames of videos."""
    from ..inference.frames import check_names, extract_frames
    from ..utils.errors import InputError
    from ..utils.files import UnwritableError, make_output_folder

    check_names(args.videos)
    make_output_folder("--output", args.output)
    problems, images = [], 0
    for file in args.videos:
        try:
            found = extract_frames(file, args.output, args.every, args.min_change)
        except UnwritableError:
            raise
        except InputError as error:
            problems.append(str(error))
            continue
        alike = f"; {found.alike} hardly differ from the one before" if found.alike else ""
        print(f"{file}: {found.images} images of {found.frames} frames{alike}")
        images += found.images
        problems += [found.problem] if found.problem else []
    for problem in problems:
        print(f"problem: {problem}")
    print(f"{images} images in {args.output}, {len(problems)} problems")
    return 1 if problems else 0
