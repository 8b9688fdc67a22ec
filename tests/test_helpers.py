import pytest
import torch
from helpers import forbid_host_sync

values = torch.arange(4.0)


@pytest.mark.parametrize(
    "sync",
    [
        lambda: values.sum().item(),
        lambda: bool(values[0] > 0),
        lambda: values.nonzero(),
        lambda: values[values > 1],
        lambda: values.masked_select(values > 1),
        lambda: values.clone().__setitem__(values > 1, values[:2]),
        lambda: values.unique(),
        lambda: torch.bincount(values.long()),
        lambda: torch.where(values > 1),
    ],
)
def test_syncs_are_forbidden(sync):
    with forbid_host_sync(), pytest.raises(AssertionError, match="waits"):
        sync()


def test_other_work_is_not():
    with forbid_host_sync():
        torch.where(values > 1, values, 0.0)[values.long()].sum() + len(values)


@pytest.mark.parametrize(
    "sync",
    [
        lambda: values.to("meta"),
        lambda: torch.tensor([1.0], device="meta"),
        lambda: torch.empty(4, device="meta").copy_(values),
    ],
)
def test_copies_that_wait_are_forbidden_on_meta(sync):
    with forbid_host_sync(on_meta=True), pytest.raises(AssertionError, match="waits"):
        sync()


def test_other_copies_are_not():
    with forbid_host_sync(on_meta=True):
        moved = values[values > 1].to("meta", non_blocking=True)
        torch.empty(2, device="meta").copy_(moved)
