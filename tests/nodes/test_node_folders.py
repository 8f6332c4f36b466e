"""What a prompt may name: files of ComfyUI's input and output folders, and of folders that the owner allows."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from comfy_mesh import MeshData
from comfy_pack import PREFIX, Pack, module
from torch import Tensor

ROOT = Path(__file__).resolve().parents[2]
Reader = Callable[[str], Any]
OUTSIDE = (
    r"leads out of the folders that may be read; wanted a place in ComfyUI's input or output folder\. Copy it there"
)


@pytest.fixture
def save(pack: Pack, ball: MeshData, picture: Tensor) -> Callable[[Path], None]:
    """Makes a folder with ball.ply and a picture."""
    from PIL import Image

    def into(folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (mesh,) = module("nodes._convert").meshes_from_comfy(ball, "save", None)
        module("lowvram_core.files.meshes").save_mesh(mesh, folder / "ball.ply")
        Image.fromarray((picture[0] * 255).byte().numpy()).save(folder / "a.png")

    return into


@pytest.fixture
def load(pack: Pack) -> Callable[[str], None]:
    """Loads ball.ply and the pictures of the folder of that name, by each of the two nodes."""

    def both(folder: str, end: str = "") -> None:
        assert pack.run("LoadMesh", file=f"{folder}/ball.ply{end}").faces.shape[1] == 320
        assert pack.run("LoadPictures", folder=f"{folder}{end}")[2] == ["a"]

    return both


def refused(pack: Pack, folder: str, end: str = "") -> None:
    for node, stage, given in (
        ("LoadMesh", "load", {"file": f"{folder}/ball.ply{end}"}),
        ("LoadPictures", "picture", {"folder": f"{folder}{end}", "limit": 0}),
    ):
        with pytest.raises(ValueError, match=f"^{stage}: .* {OUTSIDE}") as caught:
            pack.run(node, **given)
        assert "HY3D_LOWVRAM_ALLOWED_FOLDERS" in str(caught.value)
        assert not pack.by_id[node].fingerprint_inputs(**given), "tells whether it is there"


def test_the_input_and_output_folders_are_read(comfy: Path, save: Any, load: Any) -> None:
    for folder in ("input/3d", "output/3d", "input/그림 1"):
        save(comfy / folder)
    load("3d")
    load("3d/../3d")
    load("그림 1")
    load(str(comfy / "input" / "3d"))
    load(str(comfy / "output" / "3d"))
    (comfy / "input" / "3d" / "ball.ply").unlink()
    load("3d", end=" [output]")


@pytest.mark.parametrize("there", [True, False], ids=["there", "not there"])
def test_everything_else_is_refused(pack: Pack, comfy: Path, save: Any, there: bool) -> None:
    """In the same words, whether it is there or not."""
    outside = comfy / "secret"
    if there:
        save(outside)
        save(comfy / "inputs")
        save(comfy / "temp")
    for name in (
        str(outside),
        "../secret",
        "x/../../secret",
        "../inputs",
        f"{comfy}/input/../secret",
        "//server/share",
    ):
        refused(pack, name)
        refused(pack, name, end=" [output]")
    refused(pack, ".", end=" [temp]")
    refused(pack, "a\0b")


def test_one_bad_picture_does_not_stop_the_others(
    pack: Pack, comfy: Path, save: Any, picture: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that is damaged, one with nothing to see, one that is too small: each is named and skipped."""
    from PIL import Image

    folder, notes = comfy / "input" / "set", []
    monkeypatch.setattr(module("nodes._host").ComfyHost, "note", lambda self, text: notes.append(text))
    save(folder)
    (folder / "ball.ply").unlink()
    (folder / "b.jpg").write_bytes(b"no picture")
    Image.new("RGBA", (64, 64), (200, 0, 0, 0)).save(folder / "c.png")
    Image.new("RGB", (8, 8)).save(folder / "d.png")
    Image.fromarray((picture[0] * 255).byte().numpy()).save(folder / "e.png")
    images, masks, names = pack.run("LoadPictures", folder="set")
    assert names == ["a", "e"] and len(images) == len(masks) == 2
    assert [note.split(" is ")[0] for note in notes] == ["picture: b.jpg", "picture: c.png", "picture: d.png"]
    assert "fully transparent" in notes[1] and all(note.endswith("It was skipped.") for note in notes)
    assert pack.run("LoadPictures", folder="set", limit=2)[2] == ["a", "e"], "the limit counts those that can be used"


@pytest.mark.skipif(os.name == "nt", reason="links want a privilege there")
def test_a_link_that_leads_out_does_not_stop_the_others(pack: Pack, comfy: Path, save: Any) -> None:
    save(comfy / "secret")
    save(comfy / "input" / "set")
    (comfy / "input" / "set" / "b.png").symlink_to(comfy / "secret" / "a.png")
    assert pack.run("LoadPictures", folder="set")[2] == ["a"]


def test_what_is_no_picture_is_named_and_skipped(
    pack: Pack, comfy: Path, save: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, notes = comfy / "input" / "set", []
    monkeypatch.setattr(module("nodes._host").ComfyHost, "note", lambda self, text: notes.append(text))
    save(folder)
    (folder / "b.png").write_bytes((folder / "a.png").read_bytes()[:100])
    for name in ("c.png", "c.bmp"):
        (folder / name).write_bytes((folder / "a.png").read_bytes())
    for name in ("._a.png", "Thumbs.db"):
        (folder / name).write_bytes(b"x")
    (folder / "old.png").mkdir()
    images, _, names = pack.run("LoadPictures", folder="set")
    assert len(images) == 3 and names == ["a", "c_bmp", "c_png"], "names stay apart"
    first, second = notes
    assert first.startswith("picture: skipped in set, since only picture files are read: ._a.png, Thumbs.db, ball.ply")
    assert first.endswith("old.png/.")
    assert second.startswith("picture: b.png cannot be read") and second.endswith("It was skipped.")
    assert pack.run("LoadPictures", folder="set", limit=2)[2] == ["a", "c"]
    for name in ("a.png", "c.png", "c.bmp"):
        (folder / name).unlink()
    with pytest.raises(ValueError, match=r"^picture: b\.png cannot be read"):
        pack.run("LoadPictures", folder="set")


@pytest.mark.skipif(os.name == "nt", reason="links want a privilege there")
def test_links_that_lead_out_are_refused(pack: Pack, comfy: Path, save: Any, load: Any) -> None:
    save(comfy / "secret")
    (comfy / "input" / "linked").symlink_to(comfy / "secret")
    refused(pack, "linked")
    (comfy / "input" / "set").mkdir()
    (comfy / "input" / "set" / "a.png").symlink_to(comfy / "secret" / "a.png")
    with pytest.raises(ValueError, match=OUTSIDE):
        pack.run("LoadPictures", folder="set")
    (comfy / "input" / "circle").symlink_to(comfy / "input" / "circle")
    with pytest.raises(ValueError, match=r"^load: "):
        pack.run("LoadMesh", file="circle/ball.ply")
    save(comfy / "output" / "3d")
    (comfy / "input" / "results").symlink_to(comfy / "output" / "3d")
    load("results")


def test_the_owner_allows_folders(
    pack: Pack, comfy: Path, save: Any, load: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two, three = (comfy / name for name in ("meshes", "내 자료 2", "by yaml"))
    for folder in (one, two, three):
        save(folder / "set")
        refused(pack, str(folder / "set"))
    monkeypatch.setenv("HY3D_LOWVRAM_ALLOWED_FOLDERS", os.pathsep.join(["", str(one), f" {two} "]))
    load(str(one / "set"))
    load(str(two / "set"))
    load("../meshes/set")
    refused(pack, str(three / "set"))
    refused(pack, str(one / ".." / "by yaml" / "set"))
    import folder_paths

    folder_paths.add_model_folder_path("hunyuan3d_lowvram_inputs", str(three))
    load(str(three / "set"))


@pytest.mark.skipif(os.name == "nt", reason="links want a privilege there")
def test_an_allowed_folder_may_be_a_link(comfy: Path, save: Any, load: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    save(comfy / "drive" / "set")
    (comfy / "link").symlink_to(comfy / "drive")
    monkeypatch.setenv("HY3D_LOWVRAM_ALLOWED_FOLDERS", str(comfy / "link"))
    load(str(comfy / "link" / "set"))
    load(str(comfy / "drive" / "set"))


@pytest.mark.parametrize("language", ["en", "ko"])
def test_texts_name_every_format_and_the_setting(language: str) -> None:
    formats = module("lowvram_core.files.formats")
    texts = json.loads((ROOT / "locales" / language / "nodeDefs.json").read_text(encoding="utf-8"))
    for ending in formats.READABLE_MESHES:
        assert ending[1:].upper() in texts[PREFIX + "LoadMesh"]["description"]
    for node in ("LoadMesh", "LoadPictures"):
        told = json.dumps(texts[PREFIX + node]["inputs"])
        assert "HY3D_LOWVRAM_ALLOWED_FOLDERS" in told and "hunyuan3d_lowvram_inputs" in told and "[output]" in told
