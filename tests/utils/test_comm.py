import torch

from wpl_d2.utils import comm as gather


def test_nccl_would_take_what_is_gathered(monkeypatch):
    def all_gather(parts, rows):
        assert rows.is_contiguous() and all(part.is_contiguous() for part in parts)
        for rank, part in enumerate(parts):
            part.copy_(rows + 100 * rank)

    monkeypatch.setattr(gather.dist, "is_initialized", lambda: True)
    monkeypatch.setattr(gather.dist, "get_world_size", lambda: 2)
    monkeypatch.setattr(gather.dist, "all_gather", all_gather)
    rows = torch.arange(12.0).view(3, 4)[:, :2]
    assert not rows.is_contiguous()
    assert torch.equal(gather.all_gather_rows(rows), torch.cat([rows, rows + 100]))
