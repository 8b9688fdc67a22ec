"""Jobs on a Ray cluster of two machines, as far as one computer can be two: workers and machines die, disks fill up."""

import json
import os
import signal
import subprocess
import time
from functools import partial
from pathlib import Path

import pytest
from test_writers import METADATA, detect, save, segment

import wpl_d2.inference.engines as engines
from wpl_d2.checkpoint import load_framework, load_model
from wpl_d2.cli import main as wpl
from wpl_d2.data import EvalDataset, setup_datasets
from wpl_d2.data.detection_cache import DetectionCache
from wpl_d2.evaluation import filled_weigher, judge_pseudo_labels
from wpl_d2.evaluation.evaluator import evaluate
from wpl_d2.evaluation.image_counts import ImageCounts
from wpl_d2.evaluation.parts import PartsEvaluation
from wpl_d2.inference.engines import RayEngine, SentFile
from wpl_d2.inference.predictor import Predictor, predict
from wpl_d2.inference.runtime_model import RuntimeModel
from wpl_d2.inference.sources import open_source
from wpl_d2.inference.writers import PredictionWriter
from wpl_d2.utils.errors import InputError

pytestmark = pytest.mark.slow
pytest.importorskip("ray")
NODE = {"num_cpus": 1, "object_store_memory": 100 * 2**20}
# Of Ray's own processes those alone that are needed: a node gives up if they are not there within some 15 seconds.
NODE |= {"include_dashboard": False, "include_log_monitor": False, "no_monitor": True}
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """Two nodes of one CPU each."""
    with pytest.MonkeyPatch.context() as patch:
        folders = [str(ROOT), str(ROOT / "tests"), str(ROOT / "tests/inference")]
        patch.setenv("PYTHONPATH", os.pathsep.join([*folders, os.environ.get("PYTHONPATH", "")]))
        patch.setenv("WPL_D2_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_BACKEND_LOG_LEVEL", "fatal")
        from ray.cluster_utils import Cluster

        cluster = Cluster(initialize_head=True, head_node_args=NODE)
        cluster.add_node(**NODE)
        yield cluster
        cluster.shutdown()


@pytest.fixture
def engine(cluster):
    return RayEngine(cluster.address, workers=1)  # a worker's start costs more than all that it does here


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


class Worker:
    """A `segment` that tells which process predicts, and dies once in the middle of a part."""

    def __init__(self, folder):
        self._folder = folder

    def __call__(self, images):
        with (self._folder / "pids").open("a") as file:
            file.write(f"{os.getpid()}\n" * len(images))
        if images.max() > 200:
            time.sleep(0.2)  # the images before are written
            try:
                (self._folder / "deadly").rename(self._folder / "dead")
            except FileNotFoundError:
                return segment(images)
            os.kill(os.getpid(), signal.SIGKILL)
        return segment(images)


def open_predictor(folder):
    return Predictor(RuntimeModel(METADATA, Worker(folder), detect), "cpu", maps=["confidence"])


def run(folder, output, engine=None, batch_size=1, facts=("job",)):
    """Predict; returns how often an image was predicted, by process, and why which was skipped."""
    log = folder.parent / "pids"
    log.write_text("")
    source = open_source(str(folder), output)
    with PredictionWriter(output, METADATA, True, source, "coco") as writer:
        opener = partial(open_predictor, folder.parent)
        predict(source, opener if engine else opener(), writer, batch_size, engine, facts)
    pids = log.read_text().split()
    return {pid: pids.count(pid) for pid in pids}, [outcome.skipped for outcome in writer.skipped]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """24 images, successive ones of one size, one of them broken; one kills who predicts it first."""
    monkeypatch.setattr(engines, "IMAGES", 4)
    for number in range(24):
        save(tmp_path / f"in/{number:02d}.png", 255 if number == 6 else 5 * number, (40 + number // 5, 30))
    (tmp_path / "in/09.png").write_bytes(b"no image")
    return tmp_path / "in"


def test_a_worker_and_a_machine_that_die_lose_and_double_nothing(cluster, folder, tmp_path, monkeypatch):
    alone, skipped = run(folder, tmp_path / "alone")
    assert sum(alone.values()) == 23 and len(skipped) == 1 and "09.png: " in skipped[0]
    (tmp_path / "deadly").touch()
    node, seen = cluster.add_node(**NODE), []

    def add(writer, outcome, add=PredictionWriter.add):
        if not seen:
            cluster.remove_node(node, allow_graceful=False)
        seen.append(outcome.file)
        add(writer, outcome)

    monkeypatch.setattr(PredictionWriter, "add", add)
    together, told = run(folder, tmp_path / "together", RayEngine(cluster.address))
    assert (tmp_path / "dead").exists() and len(seen) == len({*seen}) == 24
    assert len(together) >= 2 and sum(together.values()) > 23  # what the dead one had begun was done again
    assert told == skipped
    assert contents(tmp_path / "together") == contents(tmp_path / "alone")


def test_batches_are_those_of_one_process(engine, folder, tmp_path):
    run(folder, tmp_path / "alone", batch_size=3)
    run(folder, tmp_path / "together", engine, batch_size=3)
    assert contents(tmp_path / "together") == contents(tmp_path / "alone")


def resize(disk, size):
    subprocess.run(["mount", "-o", f"remount,size={size}", str(disk)], check=True)


def test_a_job_that_filled_the_disk_goes_on_when_there_is_room(engine, folder, tmp_path, small_disk):
    run(folder, tmp_path / "alone")
    resize(small_disk, "128k")
    with pytest.raises(InputError, match=r"cannot be written \(No space left on device.*make room there"):
        run(folder, small_disk / "out", engine)
    assert 0 < len(list((small_disk / "out/predicted.json.parts").glob("*.pt"))) < 6
    resize(small_disk, "2m")
    predicted, _ = run(folder, small_disk / "out", engine)
    assert 0 < sum(predicted.values()) < 23
    assert contents(small_disk / "out") == contents(tmp_path / "alone")


@pytest.fixture
def trained_cfg(trained, checkpoint, tmp_path, monkeypatch):
    """The config of a trained model, whose evaluation is divided into parts of 2 images."""
    monkeypatch.setattr("wpl_d2.evaluation.parts.IMAGES", 2)
    monkeypatch.setattr("wpl_d2.inference.detection_caching.PART", 2)
    cfg = load_model(checkpoint)[1]["config"].clone()
    cfg.defrost()
    cfg.merge_from_list(["MODEL.WEIGHTS", checkpoint, "OUTPUT_DIR", str(tmp_path), "DATALOADER.NUM_WORKERS", 0])
    cfg.DATASETS.TEST = cfg.DATASETS.UNLABELED
    setup_datasets(cfg)
    return cfg


def exact(results):
    """As text, in which NaN equals itself and floats have all their digits."""
    return json.dumps(results, sort_keys=True, default=lambda row: row.__dict__)


def test_figures_are_those_of_one_process_to_the_last_bit(engine, trained_cfg, checkpoint, tmp_path):
    framework, file = load_framework(trained_cfg), f"inference/{trained_cfg.DATASETS.TEST[0]}/teacher/image_counts.npz"
    parts, names = PartsEvaluation(engine, SentFile.read(checkpoint)), trained_cfg.DATASETS.TEST
    alone = evaluate(trained_cfg, framework), ImageCounts.load(tmp_path / file)
    together = evaluate(trained_cfg, framework, parts), ImageCounts.load(tmp_path / file)
    assert alone[0]["sem_seg"]["mIoU"] > 0 and "bbox" in alone[0]
    assert exact(together[0]) == exact(alone[0])
    assert together[1].files == alone[1].files and (together[1].counts == alone[1].counts).all()
    weigher = filled_weigher(trained_cfg, framework)
    dataset = EvalDataset(trained_cfg, name=names[0])
    model = framework.eval_models()["teacher"]
    judged = judge_pseudo_labels(trained_cfg, model, weigher, dataset)
    assert 0 < judged[0]["accuracy-weighted"] < 100
    assert exact(parts.judge(trained_cfg, model, weigher, dataset)) == exact(judged)
    assert not list(tmp_path.rglob("parts"))


def test_boxes_are_those_of_one_process(cluster, trained_cfg, checkpoint, tmp_path):
    ray = ["--engine", "ray", "--address", cluster.address, "--workers", "1"]
    words = ["cache-boxes", "--weights", checkpoint, "--dataset", trained_cfg.DATASETS.TEST[0], "--output"]
    assert wpl([*words, str(tmp_path / "alone.npz")]) == 0
    assert wpl([*words, str(tmp_path / "together.npz"), *ray]) == 0
    assert (tmp_path / "together.npz").read_bytes() == (tmp_path / "alone.npz").read_bytes()
    assert len(DetectionCache.load(tmp_path / "alone.npz")) == 5
