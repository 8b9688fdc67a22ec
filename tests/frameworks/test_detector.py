import shutil

import pytest
import timm
import torch
from detectron2.data import DatasetCatalog
from detectron2.engine import DefaultPredictor
from detectron2.utils.events import EventStorage
from helpers import RESNET18, SMALL, SMALL_DETECTOR, SMALL_FPN

from wpl_d2 import build_framework
from wpl_d2.checkpoint import load_checkpoint, load_framework, load_model
from wpl_d2.data import EvalDataset, build_train_loader
from wpl_d2.engine import Trainer
from wpl_d2.evaluation import evaluate_pseudo_labels
from wpl_d2.modeling import load_backbone_weights
from wpl_d2.utils.errors import InputError

LOSSES = {"loss_rpn_cls", "loss_rpn_loc", "loss_cls", "loss_box_reg"}
RUN = ["SOLVER.MAX_ITER", 4, "SOLVER.CHECKPOINT_PERIOD", 2, "SOLVER.BASE_LR", 0.005]


def trainer_of(tree, output, *opts, resume=False):
    cfg = tree.cfg(*SMALL, *SMALL_FPN, *RUN, *opts, "OUTPUT_DIR", str(output))
    output.mkdir(exist_ok=True)
    cfg.freeze()
    torch.manual_seed(0)
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume)
    return trainer


def test_only_labeled_images_train_all_parts(tree):
    cfg = tree.cfg(*SMALL, *SMALL_FPN)
    torch.manual_seed(0)
    framework, batch = build_framework(cfg), next(build_train_loader(cfg))
    with EventStorage():
        torch.manual_seed(1)
        losses = framework(batch)
        torch.manual_seed(1)
        without = framework({**batch, "unlabeled": []})
    assert losses.keys() == LOSSES
    assert all(torch.equal(losses[name], without[name]) for name in losses)
    sum(losses.values()).backward()
    idle = [name for name, p in framework.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert idle == []
    assert list(framework.eval_models()) == ["student"]


@pytest.mark.slow
def test_it_learns_the_boxes_of_the_masks(tree, tmp_path):
    opts = ["SOLVER.MAX_ITER", 60, "SOLVER.OPTIMIZER", "AdamW", "INPUT.SCALE_RANGE", (1.0, 1.0), "INPUT.CROP_SIZE"]
    opts += [(50, 60), "INPUT.RANDOM_FLIP", "none", "DATASETS.TEST", (f"{tree.name}_labeled",), "TEST.EVAL_PERIOD", 60]
    trainer = trainer_of(tree, tmp_path / "out", *opts)
    trainer.train()
    assert trainer.last_results.keys() == {"bbox"}
    assert trainer.last_results["bbox"]["AP50"] > 50
    assert (tmp_path / "out" / "model_best.pth").is_file()


def test_resume_is_exact(tree, tmp_path):
    trainer_of(tree, tmp_path / "straight").train()
    (tmp_path / "stopped").mkdir()
    shutil.copy(tmp_path / "straight" / "model_0000001.pth", tmp_path / "stopped")
    (tmp_path / "stopped" / "last_checkpoint").write_text("model_0000001.pth")
    resumed = trainer_of(tree, tmp_path / "stopped", resume=True)
    assert resumed.start_iter == 2
    resumed.train()
    straight, stopped = (
        load_checkpoint(str(tmp_path / name / "model_final.pth"))["model"] for name in ("straight", "stopped")
    )
    assert straight.keys() == stopped.keys()
    assert [key for key in straight if not torch.equal(straight[key], stopped[key])] == []


def test_what_it_leaves_is_a_detector_of_detectron2(tree, tmp_path):
    trainer = trainer_of(tree, tmp_path / "out", "SOLVER.MAX_ITER", 1, "MODEL.ROI_HEADS.SCORE_THRESH_TEST", 0.0)
    trainer.train()
    path = str(tmp_path / "out" / "model_final.pth")
    model, metadata = load_model(path)
    assert metadata["objects"] == [2, 1]
    record = DatasetCatalog.get(f"{tree.name}_val")[0]
    image = torch.randint(0, 256, (3, 50, 60), dtype=torch.uint8)
    own = trainer.framework.student.eval()
    cfg = metadata["config"]
    cfg.MODEL.WEIGHTS = path
    with torch.no_grad():
        ours, theirs = (m([{**record, "image": image}])[0]["instances"] for m in (model, own))
    predicted = DefaultPredictor(cfg)(image.permute(1, 2, 0).numpy()[:, :, ::-1])["instances"]
    assert len(theirs)
    for found in (ours, predicted):
        torch.testing.assert_close(found.pred_boxes.tensor, theirs.pred_boxes.tensor)
        torch.testing.assert_close(found.scores, theirs.scores)


def test_weights_that_lack_something_are_refused(tree, tmp_path):
    trainer_of(tree, tmp_path / "out", "SOLVER.MAX_ITER", 1).train()
    model, _ = load_model(str(tmp_path / "out" / "model_final.pth"))
    state = model.state_dict()
    state.pop("backbone.fpn_lateral2.weight")
    with pytest.raises(InputError, match=r"fpn_lateral2\.weight is missing"):
        model.load_state_dict(state, strict=False)


def test_a_backbones_weights_go_below_the_pyramid(tree, tmp_path):
    reference = timm.create_model("resnet18", pretrained=False)
    torch.save(reference.state_dict(), tmp_path / "resnet18.pth")
    student = build_framework(tree.cfg(*SMALL, *SMALL_FPN, *RESNET18)).student
    load_backbone_weights(student.backbone, str(tmp_path / "resnet18.pth"))
    own = student.backbone.bottom_up.body.state_dict()
    assert len(own) > 100
    assert all(torch.equal(value, reference.state_dict()[key]) for key, value in own.items())


@pytest.mark.parametrize(
    ("opts", "message"),
    [
        ([*SMALL_FPN, "WEIGHTING.ENABLED", True], "WEIGHTING.ENABLED: True, but a detector labels no pixels"),
        ([*SMALL_FPN, "RPPI.ENABLED", True], "RPPI.ENABLED: True, but a detector labels no pixels"),
        ([*SMALL_FPN, "MODEL.BACKBONE.OUTPUT_STRIDE", 16], "OUTPUT_STRIDE: 16 under an FPN; set it to 32"),
        ([*SMALL_FPN, "MODEL.DETECTOR.MODE", "shared"], "MODEL.DETECTOR.MODE: 'shared' .* set it to alone"),
        ([*SMALL_FPN, "MODEL.META_ARCHITECTURE", "UnifiedSegDet"], "set it to FPNDetector"),
        ([*SMALL_FPN, "INPUT.PASTE.PROB", 0.5], "INPUT.PASTE.PROB: 0.5, but Detector pastes nothing; set it to 0"),
        ([*SMALL_FPN, "FRAMEWORK.NAME", "MeanTeacher"], "MeanTeacher trains a segmenter"),
        (["FRAMEWORK.NAME", "Detector", "WEIGHTING.ENABLED", False], "is not a detector alone"),
    ],
)
def test_settings_that_contradict_name_the_mend(tree, opts, message):
    with pytest.raises(InputError, match=message):
        build_framework(tree.cfg(*SMALL, *opts))


def test_a_detector_alone_has_no_pseudo_labels_to_judge(tree):
    cfg = tree.cfg(*SMALL, *SMALL_FPN)
    with pytest.raises(InputError, match=r"TEST.PSEUDO_LABELS: a detector alone labels no pixels"):
        evaluate_pseudo_labels(cfg, build_framework(cfg).student, None, EvalDataset(cfg, name=f"{tree.name}_val"))


def test_a_shared_detectors_weights_are_not_a_pyramids(tree, tmp_path):
    trainer_of(tree, tmp_path / "out", "SOLVER.MAX_ITER", 1).train()
    cfg = tree.cfg(*SMALL, *SMALL_DETECTOR, "MODEL.WEIGHTS", str(tmp_path / "out" / "model_final.pth"))
    with pytest.raises(
        InputError,
        match=r"another model than the config's: it lacks a segmentation head \(MODEL.META_ARCHITECTURE\); set",
    ):
        load_framework(cfg)
