import cv2
import numpy as np
import pytest

from wpl_d2.cli import main
from wpl_d2.data import read_image


def write_video(file, pictures):
    file.parent.mkdir(exist_ok=True)
    writer = cv2.VideoWriter(str(file), cv2.VideoWriter.fourcc(*"MJPG"), 12, (64, 48))
    for picture in pictures:
        writer.write(picture)
    writer.release()


@pytest.fixture
def pictures():
    """24 frames: four scenes of six frames, which differ by noise alone."""
    rng = np.random.default_rng(0)
    scenes = [np.kron(rng.integers(0, 230, (6, 8, 3)), np.ones((8, 8, 1))) for _ in range(4)]
    return [(scene + rng.integers(0, 20, scene.shape)).astype(np.uint8) for scene in scenes for _ in range(6)]


def extract(*arguments):
    return main(["frames", *map(str, arguments)])


def test_each_nth_frame_is_written_unless_it_looks_like_the_last_one(tmp_path, pictures, capsys):
    write_video(tmp_path / "drive.avi", pictures)
    assert extract(tmp_path / "drive.avi", "--every", 2, "--output", tmp_path / "images") == 0
    names = [file.name for file in sorted((tmp_path / "images").iterdir())]
    assert names == [f"drive_0000{number}.jpg" for number in ("00", "06", "12", "18")]
    assert "drive.avi: 4 images of 24 frames; 8 hardly differ from the one before" in capsys.readouterr().out
    for name, picture in zip(names, pictures[::6], strict=True):
        difference = read_image(tmp_path / "images" / name).astype(int) - picture[..., ::-1]
        assert np.abs(difference).mean() < 12  # of two lossy formats
    assert extract(tmp_path / "drive.avi", "--every", 2, "--min-change", 0, "--output", tmp_path / "all") == 0
    assert len(list((tmp_path / "all").iterdir())) == 12


def test_broken_videos_are_named_and_the_others_go_on(tmp_path, pictures, capsys):
    write_video(tmp_path / "whole.avi", pictures)
    data = (tmp_path / "whole.avi").read_bytes()
    (tmp_path / "cut.avi").write_bytes(data[: len(data) // 2])
    (tmp_path / "text.mp4").write_text("no video")
    videos = [tmp_path / name for name in ("text.mp4", "cut.avi", "whole.avi", "missing.mp4")]
    assert extract(*videos, "--every", 6, "--output", tmp_path / "images") == 1
    said = capsys.readouterr().out
    assert "text.mp4: cannot be read as a video; convert it to MP4" in said
    assert "cut.avi: breaks off after" in said and "missing.mp4: cannot be read" in said
    names = {file.stem for file in (tmp_path / "images").iterdir()}
    assert names >= {f"whole_0000{number}" for number in ("00", "06", "12", "18")} | {"cut_000000"}


def test_two_videos_of_one_name_are_refused_before_any_is_read(tmp_path, pictures, capsys):
    for folder in ("a", "b"):
        write_video(tmp_path / folder / "drive.avi", pictures[:1])
    with pytest.raises(SystemExit):
        extract(tmp_path / "a/drive.avi", tmp_path / "b/drive.avi", "--output", tmp_path / "images")
    assert "b/drive.avi: its images would be named as those of" in capsys.readouterr().err
    assert not (tmp_path / "images").exists()
