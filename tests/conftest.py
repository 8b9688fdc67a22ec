from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """Real data sets beside the checkout, for the tests that need them."""
    if not (SHARED / "camvid").is_dir():
        pytest.skip(f"{SHARED} with the CamVid and COCO test data is not there")
    return SHARED
