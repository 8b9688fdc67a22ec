#!/usr/bin/env python
"""What weights are worth on a data set: a table of rows times draws, from a study's YAML to Markdown and pictures.

weight_study.py list STUDY [--output ROOT]                     rows, what they are, and which draws are finished
weight_study.py show STUDY [--rows A,B] [--draws A]            the commands that train them
weight_study.py run STUDY [--rows A,B] [--draws A] [--jobs N]  what is not finished, N runs at a time
weight_study.py collect STUDY [--output ROOT] [--page FILE]    the report and its pictures, as ROOT/study.md
"""

import argparse
import os
import shlex
from pathlib import Path

import torch
from tabulate import tabulate
from wpl_study.pictures import draw_pictures
from wpl_study.reading import load_study
from wpl_study.report import study_text
from wpl_study.results import read_results
from wpl_study.runner import Runner
from wpl_study.runs import select, words
from wpl_study.table import Table

from wpl_d2.utils.errors import InputError, clear_errors


def list_rows(args: argparse.Namespace) -> None:
    """Print a line for each row."""
    study, finished, lines = load_study(args.study), read_results(args.output), []
    for row in study.rows.values():
        draws = [name for name in study.draws if (row.name, name) in finished]
        run = select(study, args.output, [row.name])[0]
        try:
            settings = run.settings
            own = shlex.join(words({key: settings[key] for key in row.own}))
        except InputError as error:
            own = f"cannot be run: {error}"
        lines.append([row.name, " ".join(draws), own])
    print(tabulate(lines, ["row", "finished", "settings"], disable_numparse=True))


def show(args: argparse.Namespace) -> None:
    """Print the commands of runs, the detector's first."""
    study = load_study(args.study)
    for run in select(study, args.output, args.rows, args.draws):
        print(f"# {run.name}")
        if study.detector and run.row.asks_for_boxes:
            for _, command in run.detector_commands(study.detector):
                print(shlex.join(command))
        print(shlex.join(run.training))
        for judging in run.judgings():
            print(shlex.join(judging.command))


def run(args: argparse.Namespace) -> None:
    """Train and judge."""
    if args.jobs < 1:
        raise InputError(f"--jobs: {args.jobs} runs at a time; take at least 1")
    runner = Runner(args.output, args.jobs)
    runner.run(select(load_study(args.study), args.output, args.rows, args.draws))
    if runner.failed:
        raise SystemExit(f"not finished: {', '.join(runner.failed)}")


def collect(args: argparse.Namespace) -> None:
    """Write the report."""
    table = Table(load_study(args.study), read_results(args.output), args.output)
    if not table.results:
        raise InputError(
            f"{args.output}: holds no results.csv with finished runs; give the folder that `run` wrote into"
        )
    page = args.page or args.output / "study.md"
    text = study_text(table, draw_pictures(table, page.with_name(f"{page.stem}_")), args.study)
    page.write_text(text)
    print(text, end="")


def names(text: str) -> list[str]:
    """Names with commas between them."""
    return [name.strip() for name in text.split(",") if name.strip()]


def parse_args() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("study", type=Path, metavar="STUDY", help="its YAML, such as those in studies/")
    common.add_argument("--output", type=Path, metavar="ROOT", help="of its runs; by default output/study/NAME")
    chosen = argparse.ArgumentParser(add_help=False)
    chosen.add_argument("--rows", type=names, default=[], help="names with commas between them; by default all")
    chosen.add_argument("--draws", type=names, default=[], help="likewise")
    lists = commands.add_parser("list", parents=[common], help="rows, and which draws of them are finished")
    lists.set_defaults(call=list_rows)
    shown = commands.add_parser("show", parents=[common, chosen], help="print the commands of runs")
    shown.set_defaults(call=show)
    running = commands.add_parser("run", parents=[common, chosen], help="train and judge what is not finished")
    cores = 1 if torch.cuda.is_available() else min(8, len(os.sched_getaffinity(0)))
    running.add_argument(
        "--jobs", type=int, default=cores, metavar="N", help="runs at a time, here by default %(default)s"
    )
    running.set_defaults(call=run)
    collected = commands.add_parser("collect", parents=[common], help="write the report and its pictures")
    collected.add_argument("--page", type=Path, metavar="FILE", help="the report's; by default ROOT/study.md")
    collected.set_defaults(call=collect)
    args = parser.parse_args()
    args.output = args.output or Path("output/study") / args.study.stem
    return args


if __name__ == "__main__":
    with clear_errors():
        arguments = parse_args()
        arguments.call(arguments)
