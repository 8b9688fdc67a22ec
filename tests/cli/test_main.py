"""The `wpl` command before a command runs: its help, its flags, and what it says to mistyped words."""

import subprocess
import sys
from pathlib import Path

import pytest
from detectron2.engine import default_argument_parser

from wpl_d2.cli import COMMANDS, build_parser, choices, main
from wpl_d2.data.inspection.known_sets import known_sets
from wpl_d2.data.preparation import BENCHMARKS
from wpl_d2.export import FORMATS
from wpl_d2.inference import Prediction
from wpl_d2.inference.mask_formats import MASK_FORMATS
from wpl_d2.inference.sources import CONFIDENCE, PROBABILITIES
from wpl_d2.modeling.weights import MODEL_NAMES

HEAVY = ("torch", "detectron2", "cv2", "numpy", "PIL")
# All commands, and the tools, in one process, which then says what was imported.
ASK = f"""
import runpy, sys
from pathlib import Path
from wpl_d2.cli import COMMANDS, main
for tool in Path(sys.argv[1]).glob("*.py"):
    sys.argv[:] = [str(tool), "--help"]
    try:
        runpy.run_path(str(tool), run_name="__main__")
    except SystemExit as end:
        assert end.code == 0, tool
for words in [["--help"], *([name, word] for name in COMMANDS for word in ("--help", "--nonsense"))]:
    try:
        main(words)
    except SystemExit as end:
        assert end.code == (2 if "--nonsense" in words else 0), words
print("imported:", *sorted(set(sys.modules) & set({HEAVY!r})))
"""


def test_help_and_unknown_flags_import_nothing_that_takes_long():
    command = [sys.executable, "-c", ASK, str(Path(__file__).resolve().parents[2] / "tools")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "imported:"
    for name in COMMANDS:
        assert f"usage: wpl {name} " in done.stdout
        assert f"wpl {name}: error: unrecognized arguments: --nonsense" in done.stderr


def test_the_flags_of_training_are_detectron2s():
    def actions(parser):
        names = ("option_strings", "dest", "nargs", "const", "default", "type", "choices", "required", "metavar")
        return [(type(action), *(getattr(action, name) for name in names)) for action in parser._actions]

    theirs = actions(default_argument_parser())
    renamed = [(*action[:-1], "KEY VALUE") if action[2] == "opts" else action for action in theirs]
    assert actions(build_parser("train_net")) == renamed
    of_train = actions(build_parser("train"))
    assert [action for action in of_train if action in renamed] == renamed


def test_choices_are_those_of_the_package():
    assert choices.MODELS == MODEL_NAMES
    assert {name: form.suffix for name, form in FORMATS.items()} == choices.FORMATS
    assert tuple(sorted(BENCHMARKS)) == choices.BENCHMARKS
    assert tuple(MASK_FORMATS) == choices.MASK_FORMATS
    assert tuple(known_sets()) == choices.KNOWN_SETS
    assert set(choices.MAPS) == {CONFIDENCE, PROBABILITIES} < {*Prediction._fields}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["trian"], "wpl: error: no command 'trian'; did you mean train?"),
        (["cache_boxes"], "did you mean cache-boxes"),
        (["predict", "--weigths", "a.pth"], "wpl predict: error: unrecognized arguments: --weigths; did you mean --we"),
        (["train", "a.yaml", "--num_gpus=2"], "unrecognized arguments: --num_gpus; did you mean --num-gpus"),
        (["train", "nowhere.yaml"], "error: nowhere.yaml: No such file or directory; give a YAML file, see configs/"),
        (["train", "--config-file", "nowhere.yaml", "SEED", "1"], "error: nowhere.yaml: No such file"),
    ],
)
def test_mistyped_words_get_the_nearest_right_one(words, said, capsys):
    with pytest.raises(SystemExit) as end:
        main(words)
    assert end.value.code == 2
    assert said in capsys.readouterr().err.splitlines()[-1]


WITHOUT_DETECTRON2 = """
import sys
from wpl_d2.cli import main
class Finder:
    def find_spec(self, name, *_):
        if name == "detectron2":
            raise ModuleNotFoundError("No module named 'detectron2'", name=name)
sys.meta_path.insert(0, Finder())
main(["check", "a.yaml"])
"""


def test_a_missing_detectron2_is_said_with_how_to_get_it():
    done = subprocess.run([sys.executable, "-c", WITHOUT_DETECTRON2], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: detectron2: is not installed; ") and "sal-detectron2" in done.stderr
