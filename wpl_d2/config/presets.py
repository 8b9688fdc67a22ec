"""The presets that the package brings along, found from any folder."""

from __future__ import annotations

from pathlib import Path

# In a checkout the link leads to the folder beside the package.
ROOT = (Path(__file__).parents[1] / "configs").resolve().parent
"""What paths such as configs/quickstart.yaml begin at: the checkout, or the installed package."""
OWN_DATA = ROOT / "configs/_base_/own_data.yaml"
"""The settings for a data set that no preset is made for."""


def find_config(name: str) -> str:
    """The file that a user means: a path as it is, or from `ROOT`; or a preset's name, such as voc/unimatch.

    Args:
        name: what was given.

    Returns:
        the path; `name` if there is no such file.
    """
    places = (Path(name).expanduser(), ROOT / name, ROOT / "configs" / f"{name}.yaml")
    return next((str(place) for place in places if place.is_file()), name)


def preset_names() -> list[str]:
    """The presets by name, such as voc/unimatch."""
    names = [path.relative_to(ROOT / "configs").with_suffix("") for path in ROOT.glob("configs/**/*.yaml")]
    return sorted(name.as_posix() for name in names if name.parts[0] not in ("_base_", "datasets"))
