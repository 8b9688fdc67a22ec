#!/usr/bin/env python
"""The paper's tables as commands.

paper_tables.py list [TABLE]        published figures, and the runs that give them
paper_tables.py show NAME           a figure, or all of a run's, with the commands that give it
paper_tables.py run NAME [--num-gpus N] [--seed S] [--resume] [-- KEY VALUE ...]
paper_tables.py sweep TABLE [--num-gpus N] [--seeds S ...] [-- KEY VALUE ...]
paper_tables.py collect [ROOT]      what was measured, beside what is published
"""

import argparse
import os
import shlex
import subprocess
import sys
from pathlib import Path

from wpl_tables.commands import Command, Step, next_step, resumed, steps_of
from wpl_tables.recipes import Recipe
from wpl_tables.report import list_text, table_text, tables_csv
from wpl_tables.tables import find_cells, select_tables

from wpl_d2.utils.errors import InputError, clear_errors
from wpl_d2.utils.files import write_text


def show(args: argparse.Namespace) -> None:
    """Print figures and the commands that give them."""
    cells = find_cells(args.name)
    for cell in cells:
        notes = "; ".join(note for note in (cell.note, cell.why_not and f"published only: {cell.why_not}") if note)
        print(f"{cell.name}: {cell.published_text or 'not published'} ({notes or cell.metric})")
    if not cells[0].run:
        return
    recipe = Recipe.from_name(cells[0].run)
    print(f"\n# Lists of the split {recipe.split}: tools/prepare_dataset.py {recipe.data}")
    for step in steps_of(recipe, args.output, args.seed, args.num_gpus):
        print(shlex.join(step.command))


def run(args: argparse.Namespace) -> None:
    """Become the last command of a recipe, if what it needs is there."""
    cell = find_cells(args.name)[0]
    if not cell.run:
        raise InputError(f"{cell.name}: is published only ({cell.why_not}); `list` names what can be run")
    recipe = Recipe.from_name(cell.run)
    if args.resume and recipe.judged:
        raise InputError(f"{args.name}: judging takes no --resume; leave it out")
    steps = steps_of(recipe, args.output, args.seed, args.num_gpus)
    if (todo := next_step(steps)) is not steps[-1]:
        raise InputError(f"{todo.leaves}: is missing; first run\n{shlex.join(todo.command)}")
    command = [*(resumed(todo) if args.resume else todo.command), *args.overrides]
    print(shlex.join(command), flush=True)
    os.execv(sys.executable, [sys.executable, *command])


def sweep(args: argparse.Namespace) -> None:
    """Run all that gives a table's figures, one after the other, from where the last call stopped."""
    (table,) = select_tables(args.table)
    runs = dict.fromkeys(cell.run for cell in table.cells if cell.run)
    if not runs:
        raise InputError(f"{table.name}: all of it is published only; `list` names what can be run")
    for seed in args.seeds:
        for run_name in runs:
            steps = steps_of(Recipe.from_name(run_name), args.output, seed, args.num_gpus)
            while not steps[-1].leaves.is_file():
                todo = next_step(steps)
                overrides = args.overrides if todo is steps[-1] else []
                _call(todo, [*(resumed(todo) if todo.begun else todo.command), *overrides])
    print(table_text(table, args.output))


def _call(step: Step, command: Command) -> None:
    print(shlex.join(command), flush=True)
    subprocess.run([sys.executable, *command], check=False)
    if not step.leaves.is_file():
        raise InputError(f"{step.leaves}: was not made; mend what the command says, and sweep again")


def collect(args: argparse.Namespace) -> None:
    """Print what has been run, or write it to a file."""
    if not args.root.is_dir():
        raise InputError(f"{args.root}: no such folder; give the one that `run` wrote into")
    tables = select_tables(args.table)
    if args.output and args.output.suffix == ".csv":
        text = tables_csv(tables, args.root)
    else:
        text = "\n\n".join(table_text(table, args.root) for table in tables) + "\n"
    if args.output is None:
        print(text, end="")
    elif args.output.suffix in (".md", ".csv"):
        write_text(args.output, text)
    else:
        raise InputError(f"--output: {args.output} has an unknown ending; give .md or .csv")


def parse_args() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    lists = commands.add_parser("list", help="published figures by name")
    lists.add_argument("table", nargs="?", metavar="TABLE", help="such as table1 or supp_table2; by default all")
    lists.set_defaults(call=lambda args: print(list_text(select_tables(args.table))))
    named = argparse.ArgumentParser(add_help=False)
    named.add_argument("name", metavar="NAME", help="of a figure or a run, see list")
    named.add_argument("--output", type=Path, default=Path("output/paper"), metavar="ROOT", help="of all runs")
    named.add_argument("--seed", type=int, default=0)
    named.add_argument("--num-gpus", type=int, default=1, help="processes")
    shown = commands.add_parser("show", parents=[named], help="print the commands of a figure or a run")
    shown.set_defaults(call=show)
    training = commands.add_parser("run", parents=[named], help="train or judge; after --, further overrides")
    training.add_argument("--resume", action="store_true", help="go on where the training was stopped")
    training.set_defaults(call=run)
    swept = commands.add_parser("sweep", help="run all of a table, and show it; after --, further overrides")
    swept.add_argument("table", metavar="TABLE", help="such as table4 or supp_table2")
    swept.add_argument("--output", type=Path, default=Path("output/paper"), metavar="ROOT", help="of all runs")
    swept.add_argument("--seeds", type=int, nargs="+", default=[0])
    swept.add_argument("--num-gpus", type=int, default=1, help="processes")
    swept.set_defaults(call=sweep)
    table = commands.add_parser("collect", help="measured beside published figures")
    table.add_argument("root", nargs="?", type=Path, default=Path("output/paper"), metavar="ROOT", help="of all runs")
    table.add_argument("--table", metavar="TABLE", help="by default all")
    table.add_argument("--output", type=Path, metavar="FILE", help="Markdown or CSV by its ending: .md, .csv")
    table.set_defaults(call=collect)
    # By hand, since argparse takes them for words of NAME where an option stands between.
    end = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    args = parser.parse_args(sys.argv[1:end])
    args.overrides = sys.argv[end + 1 :]
    if args.overrides and args.call not in (run, sweep):
        parser.error("only run and sweep take overrides after --")
    return args


if __name__ == "__main__":
    with clear_errors():
        arguments = parse_args()
        arguments.call(arguments)
