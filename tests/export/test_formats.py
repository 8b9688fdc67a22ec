import io
import json
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch
from detectron2.config import CfgNode
from detectron2.export.torchscript_patch import patch_builtin_len
from helpers import SMALL_MIT, files_up_to
from PIL import Image
from torch import nn

from wpl_d2 import build_model
from wpl_d2.checkpoint import load_model
from wpl_d2.checkpoint.metadata import build_metadata
from wpl_d2.export import FORMATS, export_model, open_model
from wpl_d2.export import onnx as onnx_format
from wpl_d2.export.wrapper import ExportWrapper
from wpl_d2.modeling.model_metadata import metadata_to_texts
from wpl_d2.utils.errors import InputError

GRAPHS = ["torchscript", "torch_export", "onnx"]
METADATA = {"classes": ["ground", "box", "ball"], "objects": [2, 1]}

# What a stranger's script does: no source of this project, none of Detectron2; of a graph, one runtime alone.
STRANGER = """
import json, sys
import numpy as np

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {forbidden}:
            raise ImportError(name + " is not here")

sys.meta_path.insert(0, Refuse())
images = np.load(sys.argv[2])
{read}
np.savez(sys.argv[3], logits=logits, metadata=json.dumps({{key: json.loads(texts[key]) for key in texts}}))
"""
READ = {
    "torchscript": """
        import torch
        texts = {"classes": "", "objects": "", "colors": "", "preprocessing": ""}
        model = torch.jit.load(sys.argv[1], _extra_files=texts)
        logits = model(torch.from_numpy(images)).numpy()
    """,
    "torch_export": """
        import torch
        texts = {"classes": "", "objects": "", "colors": "", "preprocessing": ""}
        model = torch.export.load(sys.argv[1], extra_files=texts).module()
        logits = model(torch.from_numpy(images)).numpy()
    """,
    "onnx": """
        import onnxruntime
        session = onnxruntime.InferenceSession(sys.argv[1])
        texts = session.get_modelmeta().custom_metadata_map
        logits = session.run(["logits"], {"images": images})[0]
    """,
}


def noise(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * 255


@pytest.fixture(scope="module")
def teacher(checkpoint):
    return open_model(checkpoint)


@pytest.mark.parametrize("name", FORMATS)
def test_an_export_computes_what_the_model_does_at_any_size(exported, teacher, name):
    read = open_model(exported(name), trust_code=True)
    # All remainders of height and width by 4 that pooling and strides could tell apart, and other batches.
    sizes = [(1, 3, 64 + i, 96 + j) for i in range(4) for j in range(4)] + [(3, 3, 40, 131), (5, 3, 33, 35)]
    for shape in sizes:
        views = noise(*shape)
        expected = teacher.segment(views)
        torch.testing.assert_close(read.segment(views), expected, rtol=0, atol=1e-4 * expected.abs().max().item())
    assert {key: read.metadata[key] for key in METADATA} == METADATA
    assert read.metadata == teacher.metadata


HEAD = "MODEL.SEM_SEG_HEAD."
NETWORKS = {
    # A stem that rounds up, output stride 8, a norm of what is pooled over the image, aligned corners.
    "U2PL": [
        *("MODEL.RESNETS.STEM_TYPE", "deeplab_ceil", "MODEL.BACKBONE.OUTPUT_STRIDE", 8),
        *("MODEL.RESNETS.RES2_OUT_CHANNELS", 32, "MODEL.RESNETS.WIDTH_PER_GROUP", 8),
        *("MODEL.RESNETS.RES5_BLOCK_DILATIONS", (4, 8, 16), f"{HEAD}ALIGN_CORNERS", True, f"{HEAD}INIT", "pytorch"),
        *(f"{HEAD}ASPP_POOL_NORM", True, f"{HEAD}ASPP_FUSE_KERNEL", 3, f"{HEAD}REPRESENTATION_DIM", 16),
        *(f"{HEAD}DECODER_DROPOUT", 0.1, f"{HEAD}BIASED_CONVS", ("project", "fuse")),
    ],
    # Attention between the channels of an image.
    "AllSpark": [*SMALL_MIT, f"{HEAD}NAME", "AllSparkHead"],
}


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("network", NETWORKS)
def test_a_published_network_is_exported_too(tree, network, name):
    cfg = tree.cfg("MODEL.DEVICE", "cpu", *NETWORKS[network])
    torch.manual_seed(0)
    model = build_model(cfg)
    with torch.no_grad():  # for statistics by which the classes differ
        model.decode(model.encode(torch.randn(8, 3, 64, 64)), (64, 64))
    checkpoint = tree.root / "model_final.pth"
    torch.save({"model": model.state_dict(), **build_metadata(cfg)}, checkpoint)
    path = tree.root / f"model{FORMATS[name].suffix}"
    export_model(str(checkpoint), name, path)
    original, read = open_model(checkpoint), open_model(path, trust_code=True)
    for shape in [(1, 3, 64 + i, 96 + j) for i in range(4) for j in range(4)]:
        views = noise(*shape)
        expected = original.segment(views)
        torch.testing.assert_close(read.segment(views), expected, rtol=0, atol=1e-4 * expected.abs().max().item())


@pytest.mark.parametrize("name", GRAPHS)
def test_a_graph_runs_without_this_project(checkpoint, teacher, tmp_path, name, exported):
    # A TorchScript file with boxes needs torchvision's operators, one without needs PyTorch alone.
    path = exported(name)
    if name == "torchscript":
        path = tmp_path / "segment.pt"
        export_model(checkpoint, name, path)
    forbidden = {"wpl_d2", "detectron2", "fvcore", "timm", "torchvision"} | ({"torch"} if name == "onnx" else set())
    script = tmp_path / "stranger.py"
    script.write_text(STRANGER.format(forbidden=forbidden, read=textwrap.dedent(READ[name])))
    views = noise(2, 3, 51, 70)
    np.save(tmp_path / "images.npy", views.numpy())
    command = [sys.executable, script, path, tmp_path / "images.npy", tmp_path / "out.npz"]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    result = np.load(tmp_path / "out.npz")
    expected = teacher.segment(views)
    torch.testing.assert_close(
        torch.from_numpy(result["logits"]), expected, rtol=0, atol=1e-4 * expected.abs().max().item()
    )
    metadata = json.loads(str(result["metadata"]))
    assert metadata.keys() >= {"classes", "objects", "colors", "preprocessing"}
    assert {key: metadata[key] for key in METADATA} == METADATA and metadata["preprocessing"]["format"] == "RGB"


@pytest.mark.parametrize("name", [name for name in FORMATS if FORMATS[name].supports_boxes])
def test_boxes(exported, teacher, name):
    read = open_model(exported(name), trust_code=True)
    for views in (noise(2, 3, 60, 80), noise(1, 3, 97, 64, seed=1)):
        ours, theirs = teacher.detect(views), read.detect(views)
        assert len(ours) == len(theirs) == len(views) and all(len(found.boxes) for found in ours)
        for own, other in zip(ours, theirs, strict=True):
            for values, others in zip(own, other, strict=True):
                torch.testing.assert_close(others, values)
            assert set(other.classes.tolist()) <= {1, 2}


def test_a_torchscript_file_of_an_earlier_version_detects(checkpoint, teacher, tmp_path):
    class Earlier(ExportWrapper):
        def find(self, images):
            return super().detect(images)

    images, content = noise(2, 3, 60, 80), io.BytesIO()
    wrapper = Earlier(load_model(checkpoint)[0])
    with torch.no_grad(), patch_builtin_len():
        module = torch.jit.trace_module(wrapper, {"forward": (images,), "find": (images[:1],)}, check_trace=False)
    torch.jit.save(module, content, _extra_files=metadata_to_texts(teacher.metadata))
    (tmp_path / "model.pt").write_bytes(content.getvalue())
    read = open_model(tmp_path / "model.pt", trust_code=True)
    for own, other in zip(teacher.detect(images), read.detect(images), strict=True):
        torch.testing.assert_close(other.boxes, own.boxes)
        assert len(own.boxes)


def test_safetensors_rebuild_the_model(exported, checkpoint):
    model, metadata = load_model(str(exported("safetensors")))
    original, said = load_model(checkpoint, "teacher")
    assert all(torch.equal(value, original.state_dict()[key]) for key, value in model.state_dict().items())
    assert metadata["config"].dump() == said["config"].dump()
    with pytest.raises(InputError, match=r"model.safetensors: holds no student"):
        load_model(str(exported("safetensors")), "student")


def test_the_student_can_be_exported(checkpoint, teacher, tmp_path):
    export_model(checkpoint, "torchscript", tmp_path / "student.pt", which="student")
    views = noise(1, 3, 40, 50)
    expected = open_model(checkpoint, "student").segment(views)
    torch.testing.assert_close(open_model(tmp_path / "student.pt", trust_code=True).segment(views), expected)
    assert not torch.allclose(teacher.segment(views), expected)


def test_an_export_that_differs_leaves_no_file(checkpoint, tmp_path, monkeypatch):
    write = FORMATS["safetensors"].write

    def damage(model, metadata, path, boxes):
        nn.init.normal_(model.sem_seg_head.predictor.bias, std=0.1)
        write(model, metadata, path, boxes)
        nn.init.zeros_(model.sem_seg_head.predictor.bias)

    monkeypatch.setattr(FORMATS["safetensors"], "write", damage)
    with pytest.raises(InputError, match=r"model.safetensors: was not written, the export differs"):
        export_model(checkpoint, "safetensors", tmp_path / "model.safetensors")
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_exported(checkpoint, tmp_path, monkeypatch):
    cases = [
        (("onyx", "model.onnx", ""), r"--format: 'onyx' is not known; did you mean onnx"),
        (("onnx", "model.pt", ""), r"--output: .*model.pt does not end in .onnx"),
        (("onnx", "model.onnx", str(tmp_path / "none")), "--images: no images in"),
    ]
    for (name, file, images), words in cases:
        with pytest.raises(InputError, match=words):
            export_model(checkpoint, name, tmp_path / file, images)
    with pytest.raises(InputError, match=r"--boxes: onnx holds the segmentation alone; use torchscript or safetensors"):
        export_model(checkpoint, "onnx", tmp_path / "model.onnx", boxes=True)

    def missing(package):
        raise ImportError(package)

    monkeypatch.setattr(onnx_format.importlib, "import_module", missing)
    with pytest.raises(InputError, match=r"pip install 'wpl_d2\[onnx\]'"):
        export_model(checkpoint, "onnx", tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", [known.suffix for known in FORMATS.values()] + [".pth"])
def test_a_file_of_another_kind_is_refused(tmp_path, suffix):
    path = tmp_path / f"odd{suffix}"
    with pytest.raises(InputError, match="no such file"):
        open_model(path)
    path.write_text("not a model")
    with pytest.raises(InputError, match=r"odd"):
        open_model(path)


@pytest.mark.parametrize(("device", "words"), [("cudaa", "'cudaa' is not a device"), ("cuda:99", "GPUs; give cpu")])
def test_a_device_that_is_not_there_is_refused(checkpoint, device, words):
    with pytest.raises(InputError, match=f"--device: .*{words}"):
        open_model(checkpoint, device=device)


def test_a_graph_of_another_project_is_refused(tmp_path):
    torch.jit.save(torch.jit.script(nn.Identity()), str(tmp_path / "other.pt"))
    with pytest.raises(InputError, match=r"other.pt: has no class names"):
        open_model(tmp_path / "other.pt", trust_code=True)
    with pytest.raises(InputError, match=r"--model: .* holds one model"):
        open_model(tmp_path / "other.pt", "student")


@pytest.mark.parametrize("name", FORMATS)
def test_an_export_that_the_disk_refuses_is_said_in_one_line(checkpoint, tmp_path, name):
    output = tmp_path / f"model{FORMATS[name].suffix}"
    output.write_text("an earlier one")
    with files_up_to(10**6), pytest.raises(InputError, match=r"model\.\w+: cannot be written \(File too large\)"):
        export_model(checkpoint, name, output)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [(output.name, "an earlier one")]


def test_a_training_on_small_images_is_exported(checkpoint, tmp_path):
    for name, size in (("a", (1, 1)), ("b", (1, 40))):
        Image.new("RGB", size, (90, 120, 20)).save(tmp_path / f"{name}.png")
    agreement = export_model(checkpoint, "torch_export", tmp_path / "model.pt2", images=str(tmp_path / "*.png"))
    assert agreement.enlarged == [(1, 1), (40, 1)] and agreement.within_limits


def test_the_smallest_size_is_said_and_kept(exported, teacher):
    path = exported("torch_export")
    texts = {"min_size": ""}
    torch.export.load(path, extra_files=texts)
    least = json.loads(texts["min_size"])
    read = open_model(path)
    assert least == read.min_size == output_stride(teacher) + 1
    torch.testing.assert_close(read.segment(noise(1, 3, least, 40)), teacher.segment(noise(1, 3, least, 40)))
    with pytest.raises(
        InputError, match=rf"model.pt2: takes images of {least} pixels a side and more, not {least - 1}x40"
    ):
        read.segment(noise(1, 3, least - 1, 40))
    torch.jit.load(str(exported("torchscript")), _extra_files=texts)
    assert json.loads(texts["min_size"]) == 1
    for name in ("torchscript", "onnx", "safetensors"):
        smallest = open_model(exported(name), trust_code=True)
        assert smallest.min_size == 1
        torch.testing.assert_close(
            smallest.segment(noise(1, 3, 1, 1)), teacher.segment(noise(1, 3, 1, 1)), rtol=1e-4, atol=1e-4
        )


def output_stride(model):
    return CfgNode.load_cfg(model.metadata["config"]).MODEL.BACKBONE.OUTPUT_STRIDE
