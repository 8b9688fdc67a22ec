import pytest
import torch
from detectron2.engine import launch
from detectron2.layers import NaiveSyncBatchNorm
from detectron2.utils import comm

from wpl_d2.modeling import TimmBackbone, resolve_norm
from wpl_d2.modeling.layers import normalize_in_float32, stop_counting_batches


def test_one_process(monkeypatch):
    assert resolve_norm("auto", "cuda") == resolve_norm("auto", "cpu") == "BN"
    assert resolve_norm("FrozenBN", "cpu") == "FrozenBN"
    monkeypatch.setattr(comm, "get_world_size", lambda: 2)
    assert resolve_norm("auto", "cuda:1") == "SyncBN"
    assert resolve_norm("auto", "cpu") == "naiveSyncBN"


def test_batches_are_not_counted_where_nothing_reads_their_number():
    moving, cumulative = (torch.nn.BatchNorm2d(4, momentum=momentum) for momentum in (0.1, None))
    expected, images = torch.nn.BatchNorm2d(4), torch.randn(2, 4, 6, 6)
    stop_counting_batches(torch.nn.ModuleList([moving, cumulative]))
    assert torch.equal(moving(images), expected(images)) and torch.equal(moving.running_var, expected.running_var)
    assert moving.state_dict().keys() == expected.state_dict().keys()
    assert moving.state_dict()["num_batches_tracked"] == 0
    cumulative(images)
    assert cumulative.state_dict()["num_batches_tracked"] == 1


def _rank_step(weights, images, folder):
    norm = resolve_norm("auto", "cpu")
    backbone = TimmBackbone("tf_efficientnet_lite0", norm=norm)
    backbone.load_state_dict(torch.load(weights))
    backbone(torch.load(images)[comm.get_rank() :: 2])["res5"].sum().backward()
    torch.save((norm, backbone.state_dict()), f"{folder}/rank{comm.get_rank()}.pth")


@pytest.mark.slow
def test_two_cpu_ranks_share_statistics(tmp_path):
    torch.manual_seed(0)
    backbone, images = TimmBackbone("tf_efficientnet_lite0"), torch.randn(4, 3, 64, 64)
    torch.save(backbone.state_dict(), tmp_path / "weights.pth")
    torch.save(images, tmp_path / "images.pth")
    launch(_rank_step, 2, dist_url="auto", args=(tmp_path / "weights.pth", tmp_path / "images.pth", tmp_path))
    backbone(images)
    whole = backbone.state_dict()
    (norm, first), (_, second) = (torch.load(tmp_path / f"rank{rank}.pth") for rank in range(2))
    assert norm == "naiveSyncBN"
    for key in (key for key in whole if key.endswith("running_mean")):
        assert torch.equal(first[key], second[key])
        torch.testing.assert_close(first[key], whole[key], rtol=1e-3, atol=1e-4)


def test_two_cpu_ranks_normalize_in_float32(monkeypatch):
    """Two ranks with the same images: their statistics are those of one."""
    monkeypatch.setattr("detectron2.layers.batch_norm.comm.get_world_size", lambda: 2)
    monkeypatch.setattr("detectron2.layers.batch_norm.dist.get_world_size", lambda: 2)
    monkeypatch.setattr("detectron2.layers.batch_norm.differentiable_all_reduce", lambda vector: 2 * vector)
    synced = torch.nn.Sequential(NaiveSyncBatchNorm(16))
    normalize_in_float32(synced)
    images = (5 + 0.3 * torch.randn(4, 16, 32, 32, generator=torch.Generator().manual_seed(0))).bfloat16()
    expected = torch.nn.BatchNorm2d(16)(images.float())
    torch.testing.assert_close(synced(images).float(), expected, atol=1e-3, rtol=1e-3)
