"""A study of CamVid's preset, and results as its runs leave them."""

import json

from wpl_study.results import Result
from wpl_study.study import Draw, Judge, Lists, Row, Study

BASE = "configs/camvid/mean_teacher.yaml"


def make_study(rows, draws=("a", "b", "c"), **parts):
    """Rows: name to (settings, name of the plain row)."""
    return Study(
        base=BASE,
        lists=Lists("camvid_1_30_labeled", "camvid_1_30_unlabeled", "camvid_dev", "camvid_val"),
        draws={name: Draw(name, seed) for seed, name in enumerate(draws)},
        rows={name: Row(name, own, plain, tuple(own)) for name, (own, plain) in rows.items()},
        **parts,
    )


def make_result(row, draw, **fields):
    blank = dict.fromkeys(Result.__dataclass_fields__, "")
    known = {
        "seed": "0",
        "commit": "abc1234",
        "steps": "600",
        "seconds_per_step": "0.5",
        "command": "tools/train_net.py",
    }
    return Result(**blank | known | {"row": row, "draw": draw} | {key: str(value) for key, value in fields.items()})


def write_metrics(folder, rows):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metrics.json").write_text("".join(json.dumps(row) + "\n" for row in rows))


JUDGE = Judge(images=4, steps=(200,))
