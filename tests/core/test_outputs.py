"""Output files: names never collide, a user's picture is never replaced, bad names are refused before a run."""

from __future__ import annotations

from pathlib import Path

import pytest

from lowvram_core.app.outputs import check_pictures_are_kept, check_sheet, mesh_paths, turntable_path
from lowvram_core.errors import BadInput
from lowvram_core.files.pictures import unique_stems


@pytest.mark.parametrize(
    ("pictures", "stems"),
    [
        (["a.png", "a.jpg", "b.png"], ["a_png", "a_jpg", "b"]),
        (["x/a.jpg", "y/a.jpg"], ["a_jpg", "a_jpg_2"]),
        (["a.jpg", "a.png", "a_jpg.webp"], ["a_jpg", "a_png", "a_jpg_2"]),
        (["Chair.jpg", "chair.png"], ["Chair_jpg", "chair_png"]),
        (["x/Chair.jpg", "y/chair.JPG"], ["Chair_jpg", "chair_JPG_2"]),
        (["\uac00.jpg", "\u1100\u1161.jpg"], ["\uac00_jpg", "\u1100\u1161_jpg_2"]),
    ],
)
def test_names_never_collide(pictures: list[str], stems: list[str]) -> None:
    assert unique_stems([Path(picture) for picture in pictures]) == stems


@pytest.mark.parametrize("name", ["x.fbx", "x.USDZ", "x.off", "x.blend", "x.png"])
def test_other_formats_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(BadInput, match=r"^save: .* ends in .*; wanted .glb, .obj, .ply, .stl"):
        mesh_paths([Path("a.png")], tmp_path / name, "glb")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_may_have_a_dot(tmp_path: Path) -> None:
    assert mesh_paths([Path("a.png")], tmp_path / "run.2", "ply") == [tmp_path / "run.2" / "a.ply"]


def test_a_folder_in_place_of_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.glb").mkdir()
    for out in (tmp_path / "m.glb", tmp_path):
        with pytest.raises(BadInput, match=r"m\.glb is a folder; wanted a file name"):
            mesh_paths([Path("m.png")], out, "glb")


def test_sheets_are_checked(tmp_path: Path) -> None:
    check_sheet(tmp_path / "new" / "s.PNG")
    (tmp_path / "d.png").mkdir()
    for bad in (tmp_path / "s.txt", tmp_path / "s", tmp_path / "d.png"):
        with pytest.raises(BadInput, match=r"^sheet: .* is no name of a PNG file; wanted"):
            check_sheet(bad)
    with pytest.raises(BadInput, match="/proc/nothing cannot be written"):
        check_sheet(Path("/proc/nothing/s.png"))


def test_a_picture_is_never_written_over(tmp_path: Path) -> None:
    pictures = [tmp_path / "chair.png", tmp_path / "chair_texture.png"]
    for picture in pictures:
        picture.touch()
    check_pictures_are_kept(pictures, [tmp_path / "chair.glb"], tmp_path / "sheet.png")
    check_pictures_are_kept(pictures[:1], [tmp_path / "chair.obj"], None)
    for output, sheet in (("chair.obj", None), ("chair.glb", pictures[0]), ("chair.glb", tmp_path / "." / "chair.png")):
        with pytest.raises(BadInput, match=r"^save: .* would replace the picture .*chair"):
            check_pictures_are_kept(pictures, [tmp_path / output], sheet)


def test_a_turntable_never_replaces_a_picture(tmp_path: Path) -> None:
    picture, mesh = tmp_path / "chair.webp", tmp_path / "chair.glb"
    picture.touch()
    check_pictures_are_kept([picture], [mesh], None)
    with pytest.raises(BadInput, match=r"^save: .* would replace the picture .*chair"):
        check_pictures_are_kept([picture], [mesh], None, [turntable_path(mesh)])
