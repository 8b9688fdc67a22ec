import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog
from PIL import Image

from wpl_d2.config import get_cfg
from wpl_d2.data import EvalDataset
from wpl_d2.evaluation import ConfusionMatrix, SemSegConfusionEvaluator, build_evaluator, sem_seg_table
from wpl_d2.evaluation.evaluator import build_detectron2_evaluator
from wpl_d2.evaluation.sem_seg import sem_seg_metrics


def predictions(name, classes=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    for record in DatasetCatalog.get(name):
        height, width = np.asarray(Image.open(record["sem_seg_file_name"])).shape
        yield record, {"sem_seg": torch.randn(classes, height, width, generator=generator)}


def run(evaluator, pairs):
    evaluator.reset()
    for record, output in pairs:
        evaluator.process([record], [output])
    return evaluator.evaluate()


def test_many_classes_are_counted():
    """The cells of 255 classes do not fit into 16 bits."""
    ids = torch.arange(255, dtype=torch.uint8)
    matrix = ConfusionMatrix(255)
    matrix.update(ids.flip(0), ids)
    assert torch.equal(matrix.counts, torch.eye(255, dtype=torch.int64).flip(0))


@pytest.mark.parametrize("never", [None, 1, 3])
def test_numbers_are_detectron2s(tiny, tmp_path, never):
    pairs = list(predictions(tiny))
    if never is not None:
        for _, output in pairs:
            output["sem_seg"][never] = -100
    ours = run(SemSegConfusionEvaluator(EvalDataset(name=tiny)), pairs)["sem_seg"]
    theirs = run(build_detectron2_evaluator(EvalDataset(name=tiny), tmp_path / "out"), pairs)["sem_seg"]
    shared = [key for key in theirs if "Boundary" not in key and "min(" not in key]
    assert list(ours) == ["mIoU", "fwIoU", "mACC", "pACC"] + [k for k in shared if "-" in k]
    np.testing.assert_allclose([ours[k] for k in shared], [theirs[k] for k in shared], rtol=1e-12)
    assert np.isnan(ours["IoU-tree"]) and 0 < ours["mIoU"] < 100


def test_perfect_prediction(tiny):
    pairs = []
    for record in DatasetCatalog.get(tiny):
        mask = torch.from_numpy(np.asarray(Image.open(record["sem_seg_file_name"])).astype(np.int64))
        pairs.append((record, {"sem_seg": torch.eye(4)[mask.clamp(max=3)].permute(2, 0, 1)}))
    results = run(SemSegConfusionEvaluator(EvalDataset(name=tiny)), pairs)["sem_seg"]
    assert results["mIoU"] == results["pACC"] == 100


def test_reset_forgets(tiny):
    evaluator = SemSegConfusionEvaluator(EvalDataset(name=tiny))
    run(evaluator, predictions(tiny, seed=1))
    again = run(evaluator, predictions(tiny, seed=2))["sem_seg"]
    fresh = run(SemSegConfusionEvaluator(EvalDataset(name=tiny)), predictions(tiny, seed=2))["sem_seg"]
    np.testing.assert_array_equal(list(again.values()), list(fresh.values()))


def test_matrix_matches_a_loop():
    rng = np.random.default_rng(3)
    prediction, target = rng.integers(0, 5, (3, 9, 7)), rng.choice([0, 1, 4, 255], (3, 9, 7))
    matrix = ConfusionMatrix(5)
    for p, t in zip(prediction, target, strict=True):
        matrix.update(torch.from_numpy(p), torch.from_numpy(t))
    expected = np.zeros((5, 5), int)
    for p, t in zip(prediction.ravel(), target.ravel(), strict=True):
        if t != 255:
            expected[t, p] += 1
    np.testing.assert_array_equal(matrix.counts.numpy(), expected)


def test_prediction_of_another_size_is_refused(tiny):
    record = DatasetCatalog.get(tiny)[0]
    evaluator = SemSegConfusionEvaluator(EvalDataset(name=tiny))
    with pytest.raises(ValueError, match=r"0\.png"):
        evaluator.process([record], [{"sem_seg": torch.zeros(4, 20, 25)}])


def test_class_that_the_model_lacks_is_refused(tiny):
    record = DatasetCatalog.get(tiny)[0]
    with pytest.raises(ValueError, match=r"0\.png.*2 classes"):
        SemSegConfusionEvaluator(EvalDataset(name=tiny)).process([record], [{"sem_seg": torch.zeros(2, 40, 50)}])


def test_missing_mask_is_named_before_inference(tiny, tmp_path):
    (tmp_path / "masks/1.png").unlink()
    with pytest.raises(ValueError, match=r"1\.png: is in .*, but has no .*masks/1\.png; add"):
        SemSegConfusionEvaluator(EvalDataset(name=tiny))


def test_table_has_a_row_for_each_class():
    names = ["a", "b"]
    table = sem_seg_table(sem_seg_metrics(np.array([[3, 1], [0, 4]]), names), names)
    assert "| a         | 75.00 |      75.00 |" in table
    assert "| b         | 80.00 |     100.00 |" in table


def test_build_evaluator(tiny, tmp_path):
    cfg = get_cfg()
    cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES = 4
    results = run(build_evaluator(cfg, EvalDataset(name=tiny), tmp_path / "out"), predictions(tiny))
    assert list(results) == ["sem_seg"]
    cfg.TEST.EVALUATOR = "confusoin"
    with pytest.raises(ValueError, match=r"TEST\.EVALUATOR.*did you mean confusion"):
        build_evaluator(cfg, EvalDataset(name=tiny), tmp_path / "out")
