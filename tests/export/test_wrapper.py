import pytest
import torch
from helpers import SMALL, SMALL_CLIP, SMALL_FPN, SMALL_VIT, make_tree
from timm.layers.padding import get_same_padding

import wpl_d2
from wpl_d2.checkpoint.metadata import build_metadata
from wpl_d2.export.onnx import Onnx
from wpl_d2.export.torch_export import TorchExport
from wpl_d2.export.torchscript import TorchScript
from wpl_d2.export.verify import compare
from wpl_d2.export.wrapper import ExportWrapper, integer_padding
from wpl_d2.inference.runtime_model import build_runtime_model
from wpl_d2.utils.errors import InputError


def test_integer_padding_is_timms():
    import timm.layers.padding as padding

    cases = [(n, k, s, d) for n in range(1, 40) for k in (1, 2, 3, 5, 7) for s in (1, 2, 3, 4) for d in (1, 2)]
    expected = [get_same_padding(*case) for case in cases]
    with integer_padding():
        assert [padding.get_same_padding(*case) for case in cases] == expected
        assert padding.get_same_padding is not get_same_padding
    assert padding.get_same_padding is get_same_padding


def test_a_backbone_that_wants_multiples_gets_them(tmp_path):
    """Its sizes are padded as `segment` pads them."""
    model = wpl_d2.build_model(make_tree(tmp_path).cfg(*SMALL)).eval()
    torch.nn.init.normal_(model.sem_seg_head.predictor.weight)
    seen = []
    model.backbone.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape))
    images = torch.rand(2, 3, 41, 70) * 255
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(model.backbone), "size_divisibility", property(lambda _: 32))
        expected = model.segment(images)
        torch.testing.assert_close(ExportWrapper(model)(images), expected)
    assert seen == [(2, 3, 64, 96)] * 2


def test_a_detector_alone_only_finds(tmp_path):
    cfg = make_tree(tmp_path).cfg(*SMALL, *SMALL_FPN)
    model = wpl_d2.build_model(cfg).eval()
    with pytest.raises(InputError, match="FPNDetector does not make; use safetensors"):
        ExportWrapper(model)
    runtime = build_runtime_model(model, {**build_metadata(cfg), "config": cfg})
    assert runtime.segment is None
    image = torch.rand(3, 64, 90) * 255
    (found,), (expected,) = runtime.detect(image[None]), model([{"image": image}])
    assert torch.equal(found.boxes, expected["instances"].pred_boxes.tensor) and len(found.boxes)
    objects = torch.tensor([2, 1])  # the description names ball, then box
    assert torch.equal(found.classes, objects[expected["instances"].pred_classes])


def exported(model, cfg, format_class, folder):
    """A model as the runtime model that exports have to equal, and as a graph that was written and read."""
    reference = build_runtime_model(model, {**build_metadata(cfg), "config": cfg})
    written = format_class()
    path = folder / f"model{written.suffix}"
    written.write(model, reference.metadata, path, boxes=False)
    return reference, written.read(path, "cpu")


@pytest.mark.slow
@pytest.mark.parametrize("format_class", [TorchExport, Onnx])
def test_same_padding_is_exported(tmp_path, shared, format_class):
    """EfficientNet-Lite pads by what the image's size leaves over."""
    from wpl_d2.data import read_image

    cfg = make_tree(tmp_path).cfg(*SMALL, "MODEL.TIMM.NAME", "tf_efficientnet_lite0")
    model = wpl_d2.build_model(cfg).eval()
    torch.nn.init.normal_(model.sem_seg_head.predictor.weight)
    reference, read = exported(model, cfg, format_class, tmp_path)
    photograph = torch.from_numpy(read_image(min((shared / "camvid/images").iterdir())).copy()).permute(2, 0, 1)
    assert compare(reference, read, [photograph]).within_limits


@pytest.mark.parametrize("network", [SMALL_VIT, SMALL_CLIP], ids=["DPT", "VLG"])
@pytest.mark.parametrize(
    "format_class",
    [TorchScript, pytest.param(TorchExport, marks=pytest.mark.slow), pytest.param(Onnx, marks=pytest.mark.slow)],
)
def test_vision_transformers_are_exported(tmp_path, network, format_class):
    """At any size: what the patch divides and what not, the embedding's own grid, fewer cells than VLG pools."""
    cfg = make_tree(tmp_path).cfg(*SMALL, *network, "MODEL.MASKCLIP.LAYERS", (1, 3))
    model = wpl_d2.build_model(cfg).eval()
    torch.nn.init.normal_(model.backbone.body.pos_embed)
    reference, read = exported(model, cfg, format_class, tmp_path)
    for size in [(read.min_size, 8), (24, 40), (56, 57), (64, 96), (131, 97), (160, 160)]:
        images = torch.rand(3, 3, *size) * 255
        expected = reference.segment(images)
        torch.testing.assert_close(read.segment(images), expected, rtol=0, atol=1e-4 * expected.abs().max().item())
