import numpy as np
import pytest
from test_sem_seg import predictions, run

from wpl_d2.data import EvalDataset
from wpl_d2.evaluation import ImageCounts, SemSegConfusionEvaluator
from wpl_d2.evaluation.image_counts import FILE, class_figures, interval, mean_iou


def counts_of(*images):
    """One list of (right, true, predicted) by class for each image."""
    counts = np.array(images, dtype=np.int64).transpose(0, 2, 1)
    classes = [f"c{index}" for index in range(counts.shape[2])]
    files = [f"{index}.png" for index in range(len(counts))]
    return ImageCounts(files, classes, counts, np.diag(counts[:, 0].sum(axis=0)))


def test_what_is_kept_of_each_image_sums_to_the_figures_of_the_evaluation(tiny, tmp_path):
    evaluator = SemSegConfusionEvaluator(EvalDataset(name=tiny), output_dir=tmp_path / "new")
    results = run(evaluator, predictions(tiny))["sem_seg"]
    kept = ImageCounts.load(tmp_path / "new" / FILE)
    assert [file[-5:] for file in kept.files] == ["0.png", "1.png", "2.png"]
    assert kept.counts.shape == (3, 3, 4) and kept.confusion.shape == (4, 4)
    total = kept.counts.sum(axis=0)
    assert mean_iou(total) == pytest.approx(results["mIoU"])
    figures = class_figures(total)
    np.testing.assert_allclose(figures["IoU"], [results[f"IoU-{name}"] for name in kept.classes])
    np.testing.assert_allclose(figures["recall"], [results[f"ACC-{name}"] for name in kept.classes])
    np.testing.assert_array_equal(kept.confusion.diagonal(), total[0])


def test_figures_of_a_class():
    figures = class_figures(counts_of([(30, 40, 60), (0, 0, 10), (0, 10, 0)]).counts[0])
    np.testing.assert_allclose(figures["IoU"], [100 * 30 / 70, np.nan, 0])
    np.testing.assert_allclose(figures["Dice"], [60, np.nan, 0])
    np.testing.assert_allclose(figures["precision"], [50, 0, np.nan])
    np.testing.assert_allclose(figures["recall"], [75, np.nan, 0])


def test_an_image_is_scored_by_the_classes_that_it_shows_or_that_are_seen_in_it():
    kept = counts_of([(8, 8, 8), (0, 0, 0), (0, 0, 0)], [(4, 4, 8), (0, 4, 0), (0, 0, 0)], [(0, 0, 0)] * 3)
    np.testing.assert_allclose(kept.scores, [100, 25, np.nan])


def test_the_interval_shrinks_with_the_number_of_images_and_holds_the_figure():
    rng = np.random.default_rng(0)
    widths = []
    for images in (20, 500):
        right = rng.integers(0, 100, images)
        kept = counts_of(*[[(int(number), 100, 100)] for number in right])
        low, high = interval(mean_iou(kept.resample()))
        assert low < mean_iou(kept.counts.sum(axis=0)) < high
        widths.append(high - low)
    assert widths[1] < widths[0] / 3


def test_two_models_are_drawn_the_same_images():
    ours = counts_of([(9, 10, 10)], [(1, 10, 10)], [(5, 10, 10)])
    theirs = counts_of([(8, 10, 10)], [(0, 10, 10)], [(4, 10, 10)])
    assert (mean_iou(ours.resample()) > mean_iou(theirs.resample())).all()


@pytest.mark.parametrize("size", [0, -30])
def test_a_damaged_or_missing_file_says_nothing(tmp_path, size):
    path = tmp_path / FILE
    assert ImageCounts.load(path) is None
    counts_of([(1, 2, 3)]).save(path)
    assert ImageCounts.load(path).counts.tolist() == [[[1], [2], [3]]]
    path.write_bytes(path.read_bytes()[:size])
    assert ImageCounts.load(path) is None
