"""The command line on tiny random models: several pictures, one of them broken; options override the preset."""

from __future__ import annotations

import io
import json
import re
import struct
import subprocess
import sys
import weakref
from pathlib import Path

import pytest
import torch
from PIL import Image, ImageDraw

from lowvram_core.app import cli
from lowvram_core.app.torch_host import TorchHost
from lowvram_core.presets import PRESETS, VALUES, cost
from lowvram_core.progress import Part
from lowvram_core.report import PHASES

ROOT = Path(__file__).resolve().parents[2]
QUICK = [
    "--variant", "v2-0", "--octree", "20", "--shape-steps", "2", "--delight-steps", "1", "--paint-steps", "1",
    "--views", "minimal", "--render-px", "128", "--texture-px", "128", "--face-budget", "500", "--device", "cpu",
    "--unwrapper", "uvunwrap", "--offline",
]  # fmt: skip


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
    table = rows[rows.index("phase") + 1 :]
    phases = [name for name in PHASES if name != "resize"]  # only upstream's way of baking resizes
    assert table == [*phases, "total", "contact"], "every phase of the run is in the table, in order; then the sheet"
    with Image.open(out / "s.png") as sheet:
        assert sheet.size == (10 * 256, 2 * 276)


@pytest.mark.parametrize("where", ["picture", "out", "sheet"])
def test_a_name_that_is_too_long_is_an_error_with_a_reason(
    where: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Found by the fuzzer: such a name raised an OSError."""
    long, picture = "a" * 5000 + ".png", str(draw(tmp_path / "a.png"))
    run = {
        "picture": [long],
        "out": [picture, "-o", "a" * 5000],
        "sheet": [picture, "-o", str(tmp_path), "--sheet", long],
    }
    assert cli.main([*run[where], "--offline"]) in (1, 2)
    assert "wanted" in capsys.readouterr().err


def test_what_lies_in_a_folder_beside_pictures_is_named(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two pictures of one name get files of their own, and a second run says what it replaces."""
    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
        draw(tmp_path / folder / "a.png")
    for name in ("._a.png", "Thumbs.db"):
        (tmp_path / "x" / name).write_bytes(b"no picture")
    (tmp_path / "x" / "old.png").mkdir()
    out = tmp_path / "out"
    run = [str(tmp_path / "x"), str(tmp_path / "y" / "a.png"), "-o", str(out), "--models", str(models), *QUICK]
    assert cli.main(run) == 0
    said = capsys.readouterr()
    assert "picture: skipped in x, since only picture files are read: ._a.png, Thumbs.db, old.png/." in said.err
    assert sorted(path.name for path in out.iterdir()) == ["a_png.glb", "a_png_2.glb"] and "replaced" not in said.out
    assert cli.main([*run[:1], *run[2:]]) == 0
    assert "replaced" not in capsys.readouterr().out and (out / "a.glb").exists()
    assert cli.main([*run[:1], *run[2:]]) == 0
    assert "MB, replaced)" in capsys.readouterr().out


def test_notes_say_which_picture_they_are_about(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Image.open(draw(tmp_path / "a.png")) as picture:
        picture.crop((0, 0, 40, 64)).save(tmp_path / "b.png")
    pictures = [str(tmp_path / name) for name in ("a.png", "b.png")]
    assert cli.main([*pictures, "-o", str(tmp_path / "out"), "--models", str(models), *QUICK]) == 0
    assert "\nb.png: background: the object touches the picture's border (right)" in capsys.readouterr().out


def test_a_turntable_and_the_seconds_of_this_machine(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], own_timings: Path
) -> None:
    out = tmp_path / "out"
    assert (
        cli.main([str(draw(tmp_path / "a.png")), "-o", str(out), "--models", str(models), "--turntable", *QUICK]) == 0
    )
    with Image.open(out / "a.webp") as turning:
        assert turning.is_animated and turning.n_frames == 36 and turning.size == (512, 512)
        assert turning.info["loop"] == 0
    said = capsys.readouterr()
    assert re.search(r"^textured mesh in [\d.]+ s: .*paint [\d.]+", said.out, re.MULTILINE)
    assert "100 %" in said.err, "one bar, full at the end"
    assert any("|shape DiT|" in name for name in json.loads(own_timings.read_text()))


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


def test_several_references(models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """They give colours and no shape. They are of one object."""
    front, *others = (str(draw(tmp_path / f"{name}.png")) for name in "abc")
    more = [value for other in others for value in ("--reference", other)]
    where = ["-o", str(tmp_path / "m.glb"), "--models", str(models)]
    assert cli.main([front, *more, *where, "--sheet", str(tmp_path / "s.png"), *QUICK]) == 0
    with Image.open(tmp_path / "s.png") as sheet:
        assert sheet.size == (12 * 256, 276), "two more pictures are delit"
    assert cli.main([front, *others, *more, *where]) == 2
    assert "picture: 3 front pictures with a reference picture; wanted one" in capsys.readouterr().err
    assert cli.main([front, "--reference", others[0], "-o", str(tmp_path), "--sheet", others[0]]) == 2


def test_values_given_win_over_the_presets() -> None:
    options = cli.build_parser().parse_args(["x.png", "--preset", "12 gb", "--octree", "96", "--no-cfg-together"])
    assert cli.chosen_preset(options) == PRESETS["12 GB"].with_(octree=96, cfg_together=False)
    options = cli.build_parser().parse_args(["x.png"])
    assert cli.chosen_preset(options) == PRESETS["8 GB Balanced"]


def test_a_preset_from_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "mine.json"
    file.write_text('{"base": "12 GB", "octree": 96, "paint_steps": 9}', encoding="utf-8")
    options = cli.build_parser().parse_args(["x.png", "--preset-file", f"'{file}'", "--octree", "64"])
    assert cli.chosen_preset(options) == PRESETS["12 GB"].with_(name="Custom", octree=64, paint_steps=9)
    file.write_text('{"base": "12 GB", "octre": 96}', encoding="utf-8")
    assert cli.main([str(draw(tmp_path / "a.png")), "-o", str(tmp_path), "--preset-file", str(file)]) == 2
    assert "Write octree if you mean that. The file is" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        cli.build_parser().parse_args(["x.png", "--preset", "2 GB", "--preset-file", str(file)])
    assert "not allowed with argument --preset" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--preset", "3 GB"], "preset: '3 GB'"),
        (["--octree", "5"], "octree is 5"),
        (["--device", "cuda:77"], "device: 'cuda:77'"),
        (["--device", "mps"], "device: 'mps'"),
        (["-o", "mesh.fbx"], "mesh.fbx ends in '.fbx'"),
        (["--sheet", "s.docx"], "sheet: s.docx"),
        (["--left", "left.png"], "2 views for variant v2-0-turbo"),
        (["--reference", "b.png"] * 5, "paint: 6 pictures of the object; wanted 1 to 5"),
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


def test_describe_needs_no_picture_and_tells_what_is_there(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--describe", "--preset", "2 GB", "--models", str(models), "--offline"]) == 0
    out = capsys.readouterr().out
    for part in ("Preset 2 GB needs 4 models, ~11.52 GB in all", f"{models / 'hunyuan3d-dit-v2-0'}\n",
                 "there    delight, ~2.58 GB", "GB are free", "Licences:",
                 "delight, paint: Tencent Hunyuan 3D"):  # fmt: skip
        assert part in out, out


def test_a_download_is_one_readable_line(capsys: pytest.CaptureFixture[str]) -> None:
    host = TorchHost(torch.device("cpu"))
    host.expect([Part("sample", 1.0)])
    with cli._Bar(host, "chair"), host.phase("download"):
        host.progress(0, 3_830_000_000)
        host.tell("downloading paint: a.bin, 0.10 of 3.83 GB, 24.0 MB/s, 2 min 35 s left")
    said = capsys.readouterr().err
    assert "downloading paint: a.bin, 0.10 of 3.83 GB, 24.0 MB/s, 2 min 35 s left" in said and "chair" in said
    assert "100000000" not in said
    host.tell("after it")
    assert "after it" not in capsys.readouterr().err


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


@pytest.mark.parametrize("seed", ["-1", str(2**64), "x"])
def test_seeds_out_of_range(capsys: pytest.CaptureFixture[str], seed: str) -> None:
    for option in ("--seed", "--delight-seed", "--paint-seed"):
        with pytest.raises(SystemExit) as caught:
            cli.main(["a.png", f"{option}={seed}"])
        assert caught.value.code == 2
        assert option in capsys.readouterr().err
    assert cli.build_parser().parse_args(["a.png", "--seed", str(2**64 - 1)]).seed == 2**64 - 1
    assert torch.Generator().manual_seed(2**64 - 1)


def test_the_users_picture_is_not_the_sheet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = draw(tmp_path / "a.png")
    before = path.read_bytes()
    assert cli.main([str(path), "-o", str(tmp_path), "--sheet", str(path)]) == 2
    assert "would replace the picture" in capsys.readouterr().err
    assert cli.main([str(draw(tmp_path / "a_texture.png")), str(path), "-o", str(tmp_path), "--format", "obj"]) == 2
    assert path.read_bytes() == before


def test_every_preset_value_has_an_option_that_says_what_it_costs(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    said = "".join(capsys.readouterr().out.split())
    for value in VALUES.values():
        assert "".join(f"{value.option}".split()) in said and "".join(cost(value.name).split()) in said, value.name


def test_options_win_over_the_preset() -> None:
    given = ["--preset", "12 gb", "--octree", "64", "--guidance", "2.5", "--no-prefetch", "--views", "minimal"]
    chosen = cli.chosen_preset(cli.build_parser().parse_args(["a.png", *given]))
    assert chosen == PRESETS["12 GB"].with_(octree=64, guidance=2.5, prefetch=False, views="minimal")


class Loads:
    """Records the hosts, and how many components each one keeps between pictures."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.hosts: list[TorchHost] = []
        self.kept: list[int] = []
        collect, make = TorchHost.collect, TorchHost.for_preset

        def counted(host: TorchHost) -> None:
            self.kept.append(len(host._kept))
            collect(host)

        def remembered(*given: object) -> TorchHost:
            self.hosts.append(make(*given))  # type: ignore[arg-type]
            return self.hosts[-1]

        monkeypatch.setattr(TorchHost, "collect", counted)
        monkeypatch.setattr(TorchHost, "for_preset", remembered)


def test_keep_keeps_between_pictures_and_nothing_at_the_end(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads = Loads(monkeypatch)
    pictures = [str(draw(tmp_path / name)) for name in ("a.png", "b.png")]
    out = ["-o", str(tmp_path / "out"), "--models", str(models), "--residency", "keep"]
    assert cli.main([*pictures, *out, *QUICK]) == 0
    assert max(loads.kept) > 5 and loads.kept[:-1] == sorted(loads.kept[:-1]), "none is given back in between"
    assert loads.kept[-1] == 0 and loads.hosts[0]._kept == {}


def test_a_picture_is_forgotten_before_the_next_one(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, results, alive = cli.run, [], []

    def watched(*given: object, **settings: object) -> object:
        alive.append(sum(result() is not None for result in results))
        result = original(*given, **settings)  # type: ignore[arg-type]
        results.append(weakref.ref(result))
        return result

    monkeypatch.setattr(cli, "run", watched)
    pictures = [str(draw(tmp_path / name)) for name in ("a.png", "b.png")]
    out = ["-o", str(tmp_path / "out"), "--models", str(models), "--sheet", str(tmp_path / "s.png")]
    assert cli.main([*pictures, *out, *QUICK]) == 0
    assert alive == [0, 0]


def test_ctrl_c_keeps_what_is_done(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    original, calls = cli.run, []

    def interrupted(*given: object, **settings: object) -> object:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return original(*given, **settings)  # type: ignore[arg-type]

    monkeypatch.setattr(cli, "run", interrupted)
    pictures = [str(draw(tmp_path / name)) for name in ("a.png", "b.png", "c.png")]
    out = ["-o", str(tmp_path / "out"), "--models", str(models), "--sheet", str(tmp_path / "s.png")]
    assert cli.main([*pictures, *out, *QUICK]) == 130
    said = capsys.readouterr()
    assert "cancelled" in said.err and len(calls) == 2
    assert (tmp_path / "out" / "a.glb").exists()
    assert said.out.index("total") < said.out.index("contact sheet")
    with Image.open(tmp_path / "s.png") as sheet:
        assert sheet.height == 276


def test_a_console_that_knows_no_korean(monkeypatch: pytest.MonkeyPatch) -> None:
    console = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(console, encoding="ascii", write_through=True))
    assert cli.main(["--describe"]) == 0
    cli._say("의자.png -> 출력")
    assert console.getvalue().endswith(b"??.png -> ??\n")


def test_a_missing_package_is_one_line() -> None:
    program = "import sys; sys.modules['diffusers'] = None; import runpy; runpy.run_module('lowvram_core')"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1
    assert "'diffusers'" in done.stderr and "pip install torch torchvision -r requirements.txt" in done.stderr
