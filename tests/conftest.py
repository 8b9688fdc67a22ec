import os
import signal
import subprocess
from pathlib import Path

# Before torch is imported, and for every process that a test starts: pytest-xdist already keeps the cores busy, and
# threads that wait for a core which they share with others spin.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch
from helpers import SMALL, SMALL_DETECTOR, make_tree

import wpl_d2

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """Real data sets beside the checkout, for the tests that need them."""
    if not (SHARED / "camvid").is_dir():
        pytest.skip(f"{SHARED} with the CamVid and COCO test data is not there")
    return SHARED


@pytest.fixture
def ordinary_signals():
    """SIGINT and SIGHUP as a program in a terminal has them: nohup, and a shell's background, let both be ignored."""
    ordinary = {signal.SIGINT: signal.default_int_handler, signal.SIGHUP: signal.SIG_DFL}
    previous = {signum: signal.signal(signum, handler) for signum, handler in ordinary.items()}
    yield
    for signum, handler in previous.items():
        signal.signal(signum, handler)


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """3 labeled, 5 unlabeled and 2 validation images of 60x50 (width x height), with masks for all."""
    monkeypatch.setenv("WPL_D2_CACHE", str(tmp_path / "cache"))
    return make_tree(tmp_path)


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 64 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    options = ["-o", "size=64k", "tmpfs", str(folder)]
    if subprocess.run(["mount", "-t", "tmpfs", *options], capture_output=True, check=False).returncode:
        pytest.skip("this user cannot mount a small disk")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture
def make_cfg():
    """Configs of small models: timm's resnet18 unless told, five classes."""

    def make(*opts):
        torch.manual_seed(0)
        cfg = wpl_d2.get_cfg()
        cfg.MODEL.DEVICE = "cpu"
        cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES = 5
        cfg.MODEL.BACKBONE.NAME = "build_timm_backbone"
        cfg.merge_from_list(list(opts))
        return cfg

    return make


@pytest.fixture
def shared_detector():
    """Options that add a small detector of the semantic classes 2 and 4."""
    return [
        *("MODEL.DETECTOR.MODE", "shared", "MODEL.DETECTOR.CLASSES", (2, 4), "MODEL.DETECTOR.CHANNELS", 32),
        *("MODEL.ROI_BOX_HEAD.FC_DIM", 64, "MODEL.ANCHOR_GENERATOR.SIZES", [[16, 32, 64]]),
    ]


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """The folder of a training of one step, whose teacher and student were then made to differ visibly."""
    from wpl_d2.engine import Trainer

    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WPL_D2_CACHE", str(folder / "cache"))
        cfg = make_tree(folder).cfg(*SMALL, *SMALL_DETECTOR, "SOLVER.MAX_ITER", 1, "OUTPUT_DIR", str(folder))
        cfg.freeze()
        torch.manual_seed(0)
        trainer = Trainer(cfg)
        trainer.train()
    for model in (trainer.framework.teacher.eval(), trainer.framework.student.eval()):
        predictor = model.sem_seg_head.predictor
        torch.nn.init.normal_(predictor.weight)
        with torch.no_grad():  # so that no class wins everywhere
            predictor.bias -= model.segment(torch.rand(1, 3, 50, 60) * 255).mean(dim=(0, 2, 3))
    trainer.checkpointer.save("model_final")
    return folder


@pytest.fixture(scope="session")
def checkpoint(trained):
    return str(trained / "model_final.pth")


@pytest.fixture(scope="session")
def images(trained):
    return trained / "set" / "images"


@pytest.fixture(scope="session")
def exported(checkpoint, tmp_path_factory):
    """The checkpoint in a format, exported once."""
    from wpl_d2.export import FORMATS, export_model

    folder, made = tmp_path_factory.mktemp("exported"), {}

    def export(name) -> Path:
        if name not in made:
            path = folder / f"model{FORMATS[name].suffix}"
            made[name] = path, export_model(checkpoint, name, path, boxes=FORMATS[name].supports_boxes)
        return made[name][0]

    return export


@pytest.fixture(scope="session")
def bucket():
    """The URL of a bucket of a server on this machine, which has S3's protocol."""
    pytest.importorskip("s3fs")
    pytest.importorskip("moto")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "testing")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        from moto.server import ThreadedMotoServer

        server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        server.start()
        host, port = server.get_host_and_port()
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        import fsspec

        fsspec.filesystem("s3").mkdir("photos")
        yield "s3://photos"
        server.stop()
