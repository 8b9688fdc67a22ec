"""Prepare VOC, Cityscapes, COCO, ADE20K, VOC animals or NYUv2: masks from unpacked archives, published and new splits.

VOC animals is made from the VOC2012/ beside it. It and NYUv2, whose small photos and masks must be there, come with
their own lists.

Existing files are kept, so an interrupted run can simply be repeated. Nothing but split lists is downloaded; messages
about missing archives say where to get them. The exit status is 1 if there are problems.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from ..utils.command_line import positive_int
from ..utils.errors import InputError
from .choices import BENCHMARKS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("dataset", choices=BENCHMARKS)
    parser.add_argument("--root", type=Path, help="the data set's folder (default: where its description looks)")
    parser.add_argument("--splits", metavar="FOLDER|URL", help="import the published lists that are there")
    parser.add_argument("--fraction", help="make a new split with this share of labeled images, such as 1/20")
    parser.add_argument("--seed", type=int, default=0, help="of --fraction")
    parser.add_argument("--balanced", action="store_true", help="with --fraction: show all classes equally often")
    parser.add_argument("--workers", type=positive_int, default=os.cpu_count(), help="processes")


def main(args: argparse.Namespace) -> int:
    """Prepare a data set."""
    from ..data import load_description
    from ..data.preparation import (
        BENCHMARKS,
        drop_system_files,
        import_lists,
        list_file,
        lists_table,
        new_split,
        parse_fraction,
        prepare_images,
        write_unlabeled_lists,
    )

    if args.balanced and not args.fraction:
        raise InputError("--balanced: is for --fraction; give that too")
    if args.root and args.root.exists() and not args.root.is_dir():
        raise InputError(f"--root: {args.root} is not a folder; give the data set's")
    benchmark = BENCHMARKS[args.dataset]
    root = args.root or load_description(benchmark.description).root
    fraction = parse_fraction(args.fraction) if args.fraction else None
    problems: list[str] = []
    for text in drop_system_files(root):
        print(f"mended: {text}")
    if args.splits:
        imported, problems = import_lists(benchmark, root, args.splits)
        for item in imported:
            print(f"{item.file}: {item.name}, {'byte for byte' if item.exact else 'the same images'} as published")
    prepared = prepare_images(benchmark, load_description(benchmark.description, root), args.workers)
    problems += prepared.problems + write_unlabeled_lists(benchmark, root)
    if fraction:
        description = load_description(benchmark.description, root)
        try:
            name = new_split(benchmark, description, fraction, args.seed, args.balanced, args.workers)
            print(f"new: {name}, {fraction} of all images in {list_file(root, 'train')}")
        except InputError as error:  # the table says why
            problems.append(str(error))
    description = load_description(benchmark.description, root)
    if root.resolve() != (expected := load_description(benchmark.description).root).resolve():
        print(f"note: {benchmark.description} looks in {expected}; set DETECTRON2_DATASETS, or link {root} there")
    print(f"\n{benchmark.name} in {root}\n\n{lists_table(benchmark, description, prepared.masks)}\n")
    for problem in problems:
        print(f"problem: {problem}")
    print(f"{len(problems)} problems")
    return 1 if problems else 0
