import pytest
import torch
import torch.nn.functional as F
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage
from helpers import SMALL_FPN

from wpl_d2 import build_model
from wpl_d2.structures import class_boxes
from wpl_d2.utils.errors import InputError

SIZE = (65, 97)


def image(seed=0, size=SIZE):
    return torch.randint(0, 256, (3, *size), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def truth(boxes=((8, 8, 40, 40), (30, 10, 80, 60)), size=SIZE):
    boxes = torch.tensor(boxes, dtype=torch.float32).view(-1, 4)
    return Instances(size, gt_boxes=Boxes(boxes), gt_classes=torch.arange(len(boxes)) % 2)


def training_item(seed=0, **fields):
    return {"image": image(seed), "sem_seg": torch.randint(0, 5, SIZE)} | fields


@pytest.fixture
def detecting(make_cfg, shared_detector):
    return build_model(make_cfg(*shared_detector))


def counting(model):
    calls = []
    model.backbone.register_forward_hook(lambda *_: calls.append(1))
    return calls


def test_normalize(make_cfg):
    model = build_model(make_cfg("MODEL.PIXEL_MEAN", [127.5] * 3, "MODEL.PIXEL_STD", [127.5] * 3))
    ends = torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1).expand(2, 3, 4, 4)
    for images in (ends, ends.float()):
        normalized = model.normalize(images)
        assert normalized.dtype == torch.float32
        assert torch.equal(normalized[0], -torch.ones(3, 4, 4)) and torch.equal(normalized[1], torch.ones(3, 4, 4))


def test_without_detector_there_are_no_detector_weights(make_cfg):
    model = build_model(make_cfg())
    assert not model.has_detector
    assert {key.split(".")[0] for key in model.state_dict()} == {"backbone", "sem_seg_head"}
    with pytest.raises(InputError, match=r"MODEL\.DETECTOR\.MODE"):
        model.detect({}, [])


@pytest.mark.parametrize(
    "opts, message",
    [
        (["MODEL.SEM_SEG_HEAD.NUM_CLASSES", 0], "NUM_CLASSES: 0.*DATASETS.DESCRIPTION"),
        (["MODEL.DETECTOR.MODE", "sharde"], "MODEL.DETECTOR.MODE: .*did you mean shared"),
        (["MODEL.DETECTOR.MODE", "shared"], "MODEL.DETECTOR.CLASSES: empty"),
        (["MODEL.META_ARCHITECTURE", "UnifedSegDet"], "META_ARCHITECTURE: .*UnifiedSegDet"),
    ],
)
def test_config_errors(make_cfg, opts, message):
    with pytest.raises(InputError, match=message):
        build_model(make_cfg(*opts))


def test_perturbed_features_are_decoded_beside_clean_ones(make_cfg):
    model = build_model(make_cfg()).eval()
    with torch.no_grad():
        features = model.encode(torch.randn(1, 3, *SIZE))
        clean = model.decode(features, SIZE)
        both = model.decode(features, SIZE, perturb=lambda maps: {k: torch.cat([v, v + 1]) for k, v in maps.items()})
    torch.testing.assert_close(both.logits[:1], clean.logits)
    torch.testing.assert_close(both.embedding[:1], clean.embedding)
    assert len(both.logits) == 2 and not torch.allclose(both.logits[0], both.logits[1])


def test_detect_in_training_mode_equals_evaluation(detecting):
    with torch.no_grad():
        features = detecting.eval().encode(detecting.normalize(image()[None]))
        (evaluated,) = detecting.detect(features, [SIZE])
        detecting.train()
        detecting.detector.roi_heads.box_head.eval()
        (trained,) = detecting.detect(features, [SIZE])
    assert len(evaluated.boxes) > 0
    assert torch.equal(evaluated.boxes, trained.boxes)
    assert torch.equal(evaluated.scores, trained.scores)
    assert detecting.detector.training and not detecting.detector.roi_heads.box_head.training


def test_boxes_have_semantic_class_ids(detecting):
    with torch.no_grad():
        features = detecting.encode(torch.randn(1, 3, *SIZE))
        (found,), (instances,) = detecting.detect(features, [SIZE]), detecting.detector.detect(features, [SIZE])
    assert {2, 4} >= set(found.classes.tolist()) and len(found.classes)
    assert found.classes.tolist() == [(2, 4)[c] for c in instances.pred_classes.tolist()]
    found.scores[0], found.scores[1:] = 0.9, 0.5
    ((boxes, classes),) = class_boxes([found], 0.9)
    assert boxes.equal(found.boxes[:1]) and classes.equal(found.classes[:1])


@pytest.mark.parametrize("instances", [truth(), truth(boxes=())], ids=["boxes", "no boxes"])
def test_detection_losses(make_cfg, shared_detector, instances):
    model = build_model(make_cfg(*shared_detector)).train()
    double = build_model(make_cfg(*shared_detector, "MODEL.DETECTOR.LOSS_WEIGHT", 2.0)).eval()
    double.load_state_dict(model.state_dict())
    features = model.encode(model.normalize(image()[None]))
    results = []
    for each in (model, double):
        with EventStorage():
            torch.manual_seed(1)
            results.append(each.detection_losses(features, [SIZE], [instances]))
    assert results[0].keys() == {"loss_rpn_cls", "loss_rpn_loc", "loss_cls", "loss_box_reg"}
    for name, loss in results[0].items():
        assert torch.isfinite(loss) and loss.requires_grad
        torch.testing.assert_close(results[1][name], 2 * loss)
    has_boxes = len(instances) > 0
    assert (results[0]["loss_rpn_loc"] > 0) == (results[0]["loss_box_reg"] > 0) == has_boxes
    sum(results[0].values()).backward()
    assert all(parameter.grad is not None for parameter in model.detector.parameters())


def test_training_contract(detecting):
    calls = counting(detecting.train())
    with EventStorage():
        losses = detecting([training_item(i, instances=truth()) for i in range(2)])
    assert losses.keys() == {"loss_sem_seg", "loss_rpn_cls", "loss_rpn_loc", "loss_cls", "loss_box_reg"}
    assert len(calls) == 1
    assert detecting([training_item(0), training_item(1)]).keys() == {"loss_sem_seg"}


def test_supervised_loss_is_the_mean_over_labeled_pixels(make_cfg):
    model = build_model(make_cfg())
    items = [training_item(0), training_item(1)]
    items[1]["sem_seg"][:, 20:] = 255
    target = torch.stack([item["sem_seg"] for item in items])
    images = model.normalize(torch.stack([item["image"] for item in items]))
    logits = model.decode(model.encode(images), SIZE).logits
    expected = F.cross_entropy(logits, target, ignore_index=255)
    torch.testing.assert_close(model(items)["loss_sem_seg"], expected)


def test_supervised_loss_without_labeled_pixels_is_zero(make_cfg):
    model = build_model(make_cfg())
    loss = model([training_item(i, sem_seg=torch.full(SIZE, 255)) for i in range(2)])["loss_sem_seg"]
    loss.backward()
    assert loss == 0 and all(torch.isfinite(p.grad).all() for p in model.parameters())


def test_training_pads_labels_of_smaller_images_with_ignore(make_cfg):
    model = build_model(make_cfg())
    small = {"image": image(1, (40, 50)), "sem_seg": torch.full((40, 50), 255)}
    padded = {"image": torch.zeros(3, *SIZE), "sem_seg": torch.full(SIZE, 255)}
    padded["image"][:] = model.pixel_mean
    padded["image"][:, :40, :50] = small["image"]
    items = [training_item(0), small]
    torch.testing.assert_close(model(items)["loss_sem_seg"], model([items[0], padded])["loss_sem_seg"])


def test_evaluation_contract(detecting):
    calls = counting(detecting.eval())
    with torch.no_grad():
        (result,) = detecting([{"image": image(), "height": 130, "width": 194}])
        direct = detecting.decode(detecting.encode(detecting.normalize(image()[None])), SIZE).logits
        (same,) = detecting([{"image": image()}])
    assert len(calls) == 3
    assert result["sem_seg"].shape == (5, 130, 194)
    assert torch.equal(same["sem_seg"], direct[0])
    assert result["instances"].image_size == (130, 194)
    torch.testing.assert_close(
        result["instances"].pred_boxes.tensor, 2 * same["instances"].pred_boxes.tensor, rtol=1e-4, atol=1e-3
    )


def test_images_of_different_sizes_do_not_influence_each_other(detecting):
    detecting.eval()
    items = [{"image": image(0)}, {"image": image(1, (50, 64))}]
    with torch.no_grad():
        together, alone = detecting(items), [detecting([item])[0] for item in items]
    for both, one in zip(together, alone, strict=True):
        assert torch.equal(both["sem_seg"], one["sem_seg"])
        assert torch.equal(both["instances"].scores, one["instances"].scores)


def test_padding_that_a_backbone_needs_is_cropped(make_cfg, monkeypatch):
    model = build_model(make_cfg()).eval()
    monkeypatch.setattr(type(model.backbone), "size_divisibility", 32)
    with torch.no_grad():
        (result,) = model([{"image": image()}])
        padded = F.pad(model.normalize(image()[None]), (0, 31, 0, 31))
        expected = model.decode(model.encode(padded), (96, 128)).logits[0, :, :65, :97]
    assert torch.equal(result["sem_seg"], expected)


def test_bfloat16(detecting):
    with torch.autocast("cpu", dtype=torch.bfloat16), EventStorage():
        losses = detecting.train()([training_item(i, instances=truth()) for i in range(2)])
    assert all(torch.isfinite(loss) for loss in losses.values())
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.no_grad():
        assert detecting.eval()([{"image": image()}])[0]["sem_seg"].dtype == torch.float32


def test_mixed_precision_moves_no_box(detecting, make_cfg):
    """Detectron2 gives the corners of boxes the type of the features, which in bfloat16 has 8 bits."""
    pooled = []
    detecting.detector.roi_heads.box_pooler.register_forward_pre_hook(lambda _, inputs: pooled.append(inputs[0]))
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.no_grad():
        detecting.eval()([{"image": image()}])
        detector = build_model(make_cfg(*SMALL_FPN, "MODEL.DETECTOR.CLASSES", (2, 4)))
        pyramid = detector.backbone(image(size=(64, 96))[None].float())
    features = [*pooled[0], *pyramid.values()]
    assert len(features) == 6 and {feature.dtype for feature in features} == {torch.float32}
