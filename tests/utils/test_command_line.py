"""Options and KEY VALUE pairs in any order, as users write them."""

import argparse

import pytest
from detectron2.engine import default_argument_parser

from wpl_d2.config import load_cfg
from wpl_d2.utils.command_line import fraction, parse_args, positive_int
from wpl_d2.utils.errors import InputError

PAIRS = ["SEED", "1", "MODEL.WEIGHTS", "a.pth"]


def own_parser():
    parser = argparse.ArgumentParser()
    parser.add_argument("--config-file", required=True)
    parser.add_argument("--size", type=int, nargs=2)
    parser.add_argument("--num-gpus", type=int, default=1)
    parser.add_argument("--boxes", action="store_true")
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE")
    return parser


@pytest.mark.parametrize("make", [default_argument_parser, own_parser])
@pytest.mark.parametrize(
    "line",
    [
        "--config-file c.yaml --num-gpus 2 SEED 1 MODEL.WEIGHTS a.pth",
        "SEED 1 MODEL.WEIGHTS a.pth --config-file c.yaml --num-gpus 2",
        "--config-file c.yaml SEED 1 --num-gpus 2 MODEL.WEIGHTS a.pth",
        "SEED 1 --num-gpus=2 MODEL.WEIGHTS a.pth --config-file=c.yaml",
    ],
)
def test_options_may_stand_anywhere(make, line):
    args = parse_args(make(), line.split())
    assert (args.config_file, args.num_gpus, args.opts) == ("c.yaml", 2, PAIRS)


def test_flags_and_options_of_several_values_stand_between_pairs_too():
    line = "SEED 1 --size 3 4 MODEL.WEIGHTS a.pth --boxes --config-file c.yaml"
    args = parse_args(own_parser(), line.split())
    assert (args.size, args.boxes, args.opts) == ([3, 4], True, PAIRS)


def test_no_pairs_at_all():
    assert parse_args(default_argument_parser(), []).opts == []


@pytest.mark.parametrize("value", ["-1", "-1.", "-.5", "-1e-3", "-2E+4", "(-1, 2)", "", "''", "a b"])
def test_values_that_look_like_options_are_values(value):
    args = parse_args(default_argument_parser(), ["A", value, "--num-gpus", "2", "B", "x"])
    assert [word.strip() for word in args.opts] == ["A", value, "B", "x"]
    assert args.num_gpus == 2


def test_a_negative_number_keeps_its_type():
    args = parse_args(default_argument_parser(), ["SEED", "-1", "SOLVER.WEIGHT_DECAY", "-1e-3"])
    cfg = load_cfg("", args.opts)
    assert (cfg.SEED, cfg.SOLVER.WEIGHT_DECAY) == (-1, -0.001)


WRONG_PAIRS = [
    ("SEED", "SEED has no value; add the missing value"),
    ("SEED 1 SOLVER.MAX_ITER", "SOLVER.MAX_ITER has no value"),
    ("SOLVER.BASE_LR SEED 1", "SOLVER.BASE_LR has no value"),
    ("SOLVER.BASE_LR --num-gpus 2", "SOLVER.BASE_LR has no value"),
    ("SEED 1 INPUT.CROP_SIZE 64 64", "64 stands where a key is expected, .* in quotes, such as"),
    ("SEED 1 x", "x stands where a key is expected"),
    ("SEED=1", "SEED=1: write `SEED 1`, with a space"),
    ("SOLVER.MAX_ITER=5 SEED=1", "SOLVER.MAX_ITER=5: write `SOLVER.MAX_ITER 5`"),
    ("seed 1", "no config key seed; did you mean SEED"),
    ("solver.max_iter 1", "no config key solver.max_iter; did you mean SOLVER.MAX_ITER"),
]


@pytest.mark.parametrize(("line", "message"), WRONG_PAIRS)
def test_what_is_no_list_of_pairs_is_said_where_it_is(line, message):
    args = parse_args(default_argument_parser(), line.split())
    with pytest.raises(InputError, match=f"^overrides: {message}"):
        load_cfg("", args.opts)


@pytest.mark.parametrize("line", ["--nonsense", "SEED 1 --nonsense", "--num-gpus x", "SEED 1 --num-gpus"])
def test_options_that_are_wrong_are_argparses_matter(capsys, line):
    with pytest.raises(SystemExit) as end:
        parse_args(default_argument_parser(), line.split())
    assert end.value.code == 2
    assert "error: " in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("text", ["0", "-1", "x", "1.5", "", "1e3"])
def test_positive_int_wants_a_whole_number_of_one_or_more(text):
    assert positive_int("12") == 12
    with pytest.raises(argparse.ArgumentTypeError, match=f"'{text}' is not a whole number of 1 or more"):
        positive_int(text)


@pytest.mark.parametrize("text", ["-0.1", "1.01", "x", "nan", ""])
def test_fraction_wants_a_number_from_zero_to_one(text):
    assert [fraction(number) for number in ("0", "0.5", "1")] == [0, 0.5, 1]
    with pytest.raises(argparse.ArgumentTypeError, match=f"'{text}' is not a number from 0 to 1"):
        fraction(text)
