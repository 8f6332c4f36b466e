"""What is fed to the pack. Each family has seeds, real files and built ones, and damages one of them for each input."""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from functools import cached_property
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any

import meshes
import numpy as np
import tiny
import torch
import trimesh
from hosts import RecordingHost
from mutate import JUNK, damaged_bytes, damaged_text, damaged_values
from PIL import Image

from lowvram_core.app.cli import main as command_line
from lowvram_core.checks.meshes import check_mesh
from lowvram_core.checks.pictures import check_cutout
from lowvram_core.errors import BadInput
from lowvram_core.files.load_meshes import load_mesh
from lowvram_core.files.meshes import save_mesh
from lowvram_core.files.pictures import load_picture
from lowvram_core.files.store import ModelStore
from lowvram_core.host import Component
from lowvram_core.networks.delight import open_delight
from lowvram_core.networks.paint import open_paint
from lowvram_core.networks.shape import open_shape
from lowvram_core.pictures.convert import cutout_from_rgba
from lowvram_core.presets import PRESETS, VALUES, Preset
from lowvram_core.stages.bake import bake
from lowvram_core.stages.clean import clean
from lowvram_core.stages.delight import delight
from lowvram_core.stages.inpaint import inpaint
from lowvram_core.stages.paint import paint_views
from lowvram_core.stages.shape import generate_shape
from lowvram_core.stages.unwrap import unwrap
from lowvram_core.types import Camera, Cutout, Mesh, Views
from workflows import Workflows

PICTURES = Path(__file__).resolve().parents[2] / "demo" / "pictures"


class Borrowed(Exception):
    """The input was accepted: a network was asked for."""


class StoppingHost(RecordingHost):
    """Lends no network."""

    @contextmanager
    def borrow(self, component: Component) -> Iterator[torch.nn.Module]:
        """Raises Borrowed."""
        raise Borrowed(component.label)
        yield


Case = Callable[[], None]
"""Uses an input. It ends, or raises LowVramError or Borrowed."""


@dataclass
class Families:
    """All families of inputs. `scratch` is a folder for what is made once."""

    scratch: Path
    small: Preset = field(default_factory=meshes.small_preset)

    @cached_property
    def all(self) -> Mapping[str, Callable[[random.Random, Path], Case]]:
        """By name: a function that makes an input in a folder."""
        return {
            "pictures": self.picture, "glTF documents": self.gltf, "mesh files": self.mesh_file,
            "meshes": self.mesh, "cutouts": self.cutout, "views": self.views, "presets": self.preset,
            "checkpoints": self.checkpoint, "command lines": self.commands,
            "workflow values": lambda rng, folder: self._workflows.case(rng, folder),
        }  # fmt: skip

    # --- pictures ---

    @cached_property
    def _pictures(self) -> list[tuple[str, bytes]]:
        found = [(path.suffix, path.read_bytes()) for path in sorted(PICTURES.iterdir())[:2] if path.suffix == ".png"]
        colours = np.random.default_rng(0).integers(0, 255, (40, 30, 4), np.uint8)
        rgba = Image.fromarray(colours)
        wide = Image.fromarray(colours[..., 0].astype(np.uint16) * 257)
        for image, kind in (
            (rgba, "png"), (rgba, "webp"), (rgba.convert("RGB"), "jpeg"), (rgba.convert("P"), "gif"),
            (rgba.convert("RGB"), "bmp"), (rgba.convert("CMYK"), "tiff"), (wide, "png"), (rgba.convert("1"), "png"),
            (rgba.convert("LA"), "png"), (rgba.convert("RGB").convert("F").point(lambda v: v), "tiff"),
            (rgba.resize((1, 50)), "png"), (rgba.resize((3000, 20)), "png"),
        ):  # fmt: skip
            stream = BytesIO()
            image.save(stream, kind)
            found.append((f".{kind}", stream.getvalue()))
        return found

    def picture(self, rng: random.Random, folder: Path) -> Case:
        """A picture file."""
        ending, content = rng.choice(self._pictures)
        path = folder / f"p{ending if rng.random() < 0.9 else rng.choice(('.png', '.jpg', '.gif', '.txt'))}"
        path.write_bytes(damaged_bytes(rng, content) if rng.random() < 0.95 else content)

        def run() -> None:
            picture = load_picture(path)
            assert picture.mode in ("RGB", "RGBA") and min(picture.size) >= 16
            found = cutout_from_rgba(picture.resize((40, 40)))
            generate_shape(found, self.small, StoppingHost(), self._store)

        return run

    # --- meshes ---

    @cached_property
    def _meshes(self) -> list[tuple[str, bytes, dict[str, bytes]]]:
        box, ball = trimesh.creation.box(), trimesh.creation.icosphere(1)
        ball.visual.vertex_colors = np.random.default_rng(1).integers(0, 255, (len(ball.vertices), 4), np.uint8)
        picture = Image.fromarray(np.random.default_rng(2).integers(0, 255, (8, 8, 3), np.uint8))
        box.visual = trimesh.visual.TextureVisuals(
            np.random.default_rng(3).random((len(box.vertices), 2)),
            trimesh.visual.material.PBRMaterial(baseColorTexture=picture),
        )
        scene = trimesh.Scene([box, ball, trimesh.creation.cylinder(0.3, 1)])
        found = [(f".{kind}", _bytes(ball.export(file_type=kind)), {}) for kind in ("ply", "stl", "off", "glb", "obj")]
        found.append((".ply", _bytes(ball.export(file_type="ply", encoding="ascii")), {}))
        found.append((".stl", _bytes(ball.export(file_type="stl_ascii")), {}))
        found.append((".glb", _bytes(scene.export(file_type="glb")), {}))
        folder = self.scratch / "obj"
        textured = unwrap(meshes.cube(), self.small.with_(unwrapper="uvunwrap"), RecordingHost())
        save_mesh(textured.with_(texture=torch.rand(8, 8, 3)), folder / "m.obj")
        beside = {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix != ".obj"}
        found.append((".obj", (folder / "m.obj").read_bytes(), beside))
        return found

    def mesh_file(self, rng: random.Random, folder: Path) -> Case:
        """A mesh file, and the files beside it."""
        ending, content, beside = rng.choice(self._meshes)
        text = ending in (".obj", ".off") or content.startswith((b"ply\nformat ascii", b"solid"))
        path = folder / f"m{ending}"
        if text and rng.random() < 0.8:
            path.write_text(damaged_text(rng, content.decode("latin-1")), encoding="latin-1", errors="replace")
        else:
            path.write_bytes(damaged_bytes(rng, content))
        for name, more in beside.items():
            (folder / name).write_bytes(damaged_bytes(rng, more) if rng.random() < 0.3 else more)
        return lambda: self._use_mesh(path, folder, rng)

    @cached_property
    def _documents(self) -> list[tuple[Any, bytes]]:
        found = []
        for ending, content, _ in self._meshes:
            if ending == ".glb":
                size = struct.unpack_from("<I", content, 12)[0]
                found.append((json.loads(content[20 : 20 + size]), content[28 + size :]))
        return found

    def gltf(self, rng: random.Random, folder: Path) -> Case:
        """A GLB whose binary part is whole and whose JSON is not."""
        document, binary = rng.choice(self._documents)
        head = json.dumps(damaged_values(rng, document)).encode()
        head += b" " * (-len(head) % 4)
        chunks = struct.pack("<I4s", len(head), b"JSON") + head + struct.pack("<I4s", len(binary), b"BIN\0") + binary
        path = folder / "m.glb"
        path.write_bytes(struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks)
        return lambda: self._use_mesh(path, folder, rng)

    def _use_mesh(self, path: Path, folder: Path, rng: random.Random) -> None:
        host = RecordingHost()
        mesh = load_mesh(path, host)
        check_mesh(mesh, "fuzz", needs_uvs=mesh.texture is not None, tiles=True)
        saved = save_mesh(mesh, folder / "out" / f"m{rng.choice(('.glb', '.obj', '.ply', '.gltf', '.stl'))}")
        load_mesh(saved, host)
        if len(mesh.faces) < 5000:
            clean(mesh, self.small, host)

    def mesh(self, rng: random.Random, _: Path) -> Case:
        """A mesh in memory with broken numbers."""
        base = rng.choice((meshes.cube(), meshes.blob(1), meshes.torus(8, 6)))
        vertices, faces = base.vertices.clone(), base.faces.clone()
        for _ in range(rng.choice((1, 2, 5))):
            kind = rng.randrange(8)
            if vertices.dim() != 2 or vertices.shape[-1] != 3 or not vertices.is_floating_point():
                break  # broken enough
            row, face = rng.randrange(max(1, len(vertices))), rng.randrange(max(1, len(faces)))
            if kind == 0 and len(vertices):
                vertices[row, rng.randrange(3)] = rng.choice((float("nan"), float("inf"), 1e30, -1e-30, 0.0))
            elif kind == 1 and len(faces):
                faces[face, rng.randrange(3)] = rng.choice((-1, len(vertices), 0, 2**40, row))
            elif kind == 2:
                vertices = vertices * rng.choice((0.0, 1e-20, 1e20, -1.0, 1e10))
            elif kind == 3:
                faces = faces[: rng.randrange(len(faces) + 1)]
            elif kind == 4:
                faces = torch.cat([faces, faces.flip(rng.choice((0, 1)))])
            elif kind == 5:
                vertices = vertices[: rng.randrange(len(vertices) + 1)]
            elif kind == 6:
                vertices = rng.choice((vertices.double(), vertices.long(), vertices[:, :2], vertices[None]))
            else:
                vertices = vertices.reshape(-1, 3) if vertices.numel() % 3 == 0 else vertices
                vertices = torch.cat([vertices, vertices])
        broken = Mesh(vertices, faces)

        def run() -> None:
            host = RecordingHost()
            unwrap(clean(broken, self.small, host), self.small.with_(unwrapper="uvunwrap"), host)

        return run

    # --- what stages hand to each other ---

    @cached_property
    def _store(self) -> ModelStore:
        return ModelStore([tiny.make_all(self.scratch / "models")], offline=True)

    def _tensor(self, rng: random.Random, *shape: int) -> torch.Tensor:
        values = torch.rand(*shape, generator=torch.Generator().manual_seed(rng.randrange(2**31)))
        for _ in range(rng.choice((0, 1, 2))):
            kind = rng.randrange(6)
            if kind == 0 and values.numel():
                values.view(-1)[rng.randrange(values.numel())] = rng.choice((float("nan"), float("inf"), -5.0, 300.0))
            elif kind == 1:
                values = values * 0 + rng.choice((0.0, 1.0, 0.5, 1e-9))
            elif kind == 2:
                values = values.double() if rng.random() < 0.5 else values.half()
            elif kind == 3 and values.dim():
                values = values[: rng.choice((0, 1, values.shape[0]))]
            elif kind == 4 and values.dim() > 1:
                values = values.transpose(0, 1).contiguous()
            elif values.dim():
                values = values[..., : rng.choice((0, 1, 2, 3, 4))].contiguous()
        return values.contiguous()

    def cutout(self, rng: random.Random, _: Path) -> Case:
        """A picture with its mask, for shape and delight."""
        size = rng.choice((1, 2, 17, 64)), rng.choice((1, 3, 64, 90))
        given = Cutout(self._tensor(rng, *size, 3), self._tensor(rng, *size))
        use = rng.choice((generate_shape, delight))

        def run() -> None:
            try:
                use(given, self.small, StoppingHost(), self._store)
            except Borrowed:
                check_cutout(given, "fuzz")
                raise

        return run

    @cached_property
    def _unwrapped(self) -> Mesh:
        return unwrap(meshes.blob(1), self.small.with_(unwrapper="uvunwrap"), RecordingHost())

    def views(self, rng: random.Random, _: Path) -> Case:
        """Painted pictures and cameras, for the bake; a reference picture for painting."""
        turns, tilts, weights = (0, 90, 45, -720, 10**9), (0, 20, -90, 200), (1.0, 0.0, -1.0, 9e9)
        cameras = tuple(
            Camera(rng.choice(turns), rng.choice(tilts), rng.choice(weights)) for _ in range(rng.choice((0, 1, 3, 3)))
        )
        images = self._tensor(rng, rng.choice((len(cameras), 3)), *[rng.choice((1, 16, 64))] * 2, 3)
        mesh = self._unwrapped
        if rng.random() < 0.3:
            mesh = mesh.with_(uvs=self._tensor(rng, len(mesh.vertices), 2) * rng.choice((1.0, 3.0)))

        def run() -> None:
            host = RecordingHost()
            atlas = bake(mesh, Views(images, cameras), self.small, host)
            textured = inpaint(mesh, atlas, host)
            assert textured.texture is not None and bool(torch.isfinite(textured.texture).all())

        def paint() -> None:
            paint_views(mesh, images[0] if len(images) else images, self.small, StoppingHost(), self._store)

        return run if rng.random() < 0.8 else paint

    def preset(self, rng: random.Random, _: Path) -> Case:
        """Values of a preset, as Preset Custom and shared JSON give them."""
        preset = PRESETS[rng.choice(list(PRESETS))]
        names = rng.sample(list(VALUES), rng.choice((1, 2, 4)))
        given = {name: rng.choice((*JUNK, VALUES[name].default, VALUES[name].low, VALUES[name].high)) for name in names}

        def run() -> None:
            changed = preset.with_(**given)
            for name, value in given.items():
                assert getattr(changed, name) == value and type(value) in (VALUES[name].kind, int), f"{name}={value!r}"

        return run

    @cached_property
    def _workflows(self) -> Workflows:
        return Workflows(self._store.roots[0], self._tensor, Borrowed)

    # --- files of models ---

    def checkpoint(self, rng: random.Random, folder: Path) -> Case:
        """A model's folder with one damaged file."""
        name, opens = rng.choice((("hunyuan3d-dit-v2-0", open_shape), ("hunyuan3d-delight-v2-0", open_delight),
                                  ("hunyuan3d-paint-v2-0", open_paint)))  # fmt: skip
        source = self._store.roots[0] / name
        files = sorted(path for path in source.rglob("*") if path.is_file())
        bad = rng.choice(files)
        for path in files:
            copy = folder / path.relative_to(source)
            copy.parent.mkdir(parents=True, exist_ok=True)
            if path == bad:
                copy.write_bytes(_damaged_file(rng, path))
            else:
                copy.symlink_to(path)

        def run() -> None:
            opens(folder, torch.float32)

        return run

    # --- the command line ---

    def commands(self, rng: random.Random, folder: Path) -> Case:
        """Options of the command line, without a picture that could be worked on."""
        options = ["--offline", "--device", "cpu", "--models", str(folder), "-o", str(folder / "out")]
        for value in rng.sample(list(VALUES.values()), 2):
            options += [value.option, *([] if value.kind is bool else [str(rng.choice(JUNK))])]
        more = (
            ["--sheet", str(rng.choice(JUNK))],
            ["--seed", "-1"],
            ["--preset", "x"],
            ["--left", "x"],
            ["--describe"],
        )
        options += rng.choice(([], *more))
        (folder / "broken.png").write_bytes(b"no picture")
        options.append(rng.choice((str(folder), str(folder / "broken.png"), "/nowhere.png", "", "a" * 5000)))

        def run() -> None:
            with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
                try:
                    code = command_line(options)
                except SystemExit as end:  # argparse
                    code = int(end.code or 0)
            if code:
                raise BadInput("the command line ended with an error")

        return run


def _bytes(content: bytes | str) -> bytes:
    return content if isinstance(content, bytes) else content.encode()


def _damaged_file(rng: random.Random, path: Path) -> bytes:
    """The content of a model's file, damaged in a way that fits its kind."""
    content = path.read_bytes()
    if path.suffix == ".json" and rng.random() < 0.7:
        return json.dumps(damaged_values(rng, json.loads(content))).encode()
    if path.suffix in (".yaml", ".txt") and rng.random() < 0.7:
        return damaged_text(rng, content.decode()).encode()
    if path.suffix == ".safetensors" and rng.random() < 0.7:
        size = struct.unpack_from("<Q", content)[0]
        head = json.dumps(damaged_values(rng, json.loads(content[8 : 8 + size]))).encode()
        return struct.pack("<Q", len(head)) + head + content[8 + size :]
    return damaged_bytes(rng, content)
