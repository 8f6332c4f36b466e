"""The command line on tiny random models: several pictures, one of them broken; values over the preset's."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest
import tiny
from PIL import Image, ImageDraw

from lowvram_core import cli
from lowvram_core.presets import PRESETS
from lowvram_core.report import STEPS

QUICK = [
    "--variant", "v2-0", "--octree", "20", "--shape-steps", "2", "--delight-steps", "1", "--multiview-steps", "1",
    "--views", "minimal", "--render-px", "128", "--texture-px", "128", "--face-budget", "500", "--device", "cpu",
    "--unwrapper", "uvunwrap", "--offline",
]  # fmt: skip


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.make_all(tmp_path_factory.mktemp("models"))


def draw(path: Path) -> Path:
    image = Image.new("RGBA", (64, 64), (0, 0, 0, 0))
    ImageDraw.Draw(image).ellipse((8, 8, 50, 56), fill=(200, 60, 30, 255))
    image.save(path)
    return path


def glb_json(path: Path) -> dict:
    data = path.read_bytes()
    (length,) = struct.unpack("<I", data[12:16])
    return json.loads(data[20 : 20 + length])


def test_a_folder_with_one_broken_picture(models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "사진 폴더"
    folder.mkdir()
    draw(folder / "a.png")
    (folder / "b.png").write_bytes(b"no picture")
    draw(folder / "c.png")
    out = tmp_path / "결과 out"
    status = cli.main([str(folder), "-o", str(out), "--models", str(models), "--sheet", str(out / "s.png"), *QUICK])
    said = capsys.readouterr()
    assert status == 1
    assert sorted(path.name for path in out.iterdir()) == ["a.glb", "c.glb", "s.png"]
    assert "b.png: picture: " in said.err and "wanted" in said.err
    material = glb_json(out / "a.glb")["materials"][0]["pbrMetallicRoughness"]
    assert "baseColorTexture" in material
    rows = [line.split()[0] for line in said.out.splitlines()]
    table = rows[rows.index("step") + 1 :]
    assert table == [*STEPS, "total"], "every step of the run is in the table, in order"
    with Image.open(out / "s.png") as sheet:
        assert sheet.size == (10 * 256, 2 * 276)


def test_an_output_file_and_its_format(models: Path, tmp_path: Path) -> None:
    picture = draw(tmp_path / "a.png")
    assert cli.main([str(picture), "-o", str(tmp_path / "mesh.obj"), "--models", str(models), *QUICK]) == 0
    assert {path.suffix for path in tmp_path.glob("mesh*")} >= {".obj", ".mtl", ".png"}


def test_several_views(models: Path, tmp_path: Path) -> None:
    front, back = draw(tmp_path / "f.png"), draw(tmp_path / "b.png")
    quick = [value if value != "v2-0" else "mv-turbo" for value in QUICK]
    out = ["-o", str(tmp_path / "m.glb"), "--models", str(models)]
    assert cli.main([str(front), "--back", str(back), *out, *quick]) == 0
    assert (tmp_path / "m.glb").exists()


def test_values_given_win_over_the_presets() -> None:
    options = cli.build_parser().parse_args(["x.png", "--preset", "12 gb", "--octree", "96", "--no-cfg-together"])
    assert cli.chosen_preset(options) == PRESETS["12 GB"].with_(octree=96, cfg_together=False)
    options = cli.build_parser().parse_args(["x.png"])
    assert cli.chosen_preset(options) == PRESETS["8 GB Balanced"]


def test_pictures_of_one_stem_do_not_overwrite_each_other(tmp_path: Path) -> None:
    assert cli._unique_stems([Path("a.png"), Path("a.jpg"), Path("b.png")]) == ["a_png", "a_jpg", "b"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--preset", "3 GB"], "preset: '3 GB'"),
        (["--octree", "5"], "octree is 5"),
        (["--device", "cuda:77"], "device: 'cuda:77'"),
        (["-o", "/proc/nothing"], "save: /proc/nothing cannot be written"),
        (["missing.png"], "missing.png"),
    ],
)
def test_wrong_usage_is_told_before_anything_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    picture = draw(tmp_path / "a.png")
    assert cli.main([str(picture), "-o", str(tmp_path), *arguments]) == 2
    assert words in capsys.readouterr().err


def test_two_pictures_for_one_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pictures = [str(draw(tmp_path / name)) for name in ("a.png", "b.png")]
    assert cli.main([*pictures, "-o", str(tmp_path / "m.glb")]) == 2
    assert "wanted a folder" in capsys.readouterr().err


def test_describe_needs_no_picture(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--describe", "--preset", "2 GB"]) == 0
    assert "hunyuan3d-dit-v2-0" in capsys.readouterr().out


def test_an_unexpected_error_does_not_stop_the_rest(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    original, calls = cli.run, []

    def fail_first(*arguments: object, **settings: object) -> object:
        calls.append(1)
        if len(calls) == 1:
            raise RuntimeError("a bug of ours")
        return original(*arguments, **settings)  # type: ignore[arg-type]

    monkeypatch.setattr(cli, "run", fail_first)
    pictures = [str(draw(tmp_path / name)) for name in ("a.png", "b.png")]
    assert cli.main([*pictures, "-o", str(tmp_path / "out"), "--models", str(models), *QUICK]) == 1
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["b.glb"]
    assert "a.png: unexpected RuntimeError: a bug of ours" in capsys.readouterr().err
