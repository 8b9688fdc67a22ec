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
