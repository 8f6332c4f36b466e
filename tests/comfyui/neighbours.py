"""Workflows that join this pack's nodes with ComfyUI's own and other packs' nodes."""

from __future__ import annotations

from typing import Any

from bundled import (
    CHECKPOINTS,
    HUGGING_FACE,
    LINE,
    LOAD_MESH_PX,
    SAVE,
    SHAPE,
    TEXTURE,
    box,
    four_views_to_mesh,
    hunyuan3d_8gb,
    load_picture,
    picture_to_mesh,
    simple,
    start,
    texture_only,
    texture_own_mesh,
)
from graph_file import Graph


def core_shape(version: str, steps: int, cfg: float, latent: int, crop: str) -> Graph:
    """ComfyUI's own Hunyuan3D makes the shape. The values are those of ComfyUI's template."""
    graph = start(f"with_core_shape_{version}", "with_core_shape")
    file, folder = CHECKPOINTS[version]
    model = {"name": file, "url": f"{HUGGING_FACE}/{folder}/{file}", "directory": "checkpoints"}
    load_picture(graph, (520, 320))
    graph.node("load", "ImageOnlyCheckpointLoader", (500, 0), 350, models=[model], ckpt_name=file)
    graph.node("shift", "ModelSamplingAuraFlow", (940, 0), 260, shift=1.0)
    graph.node("see", "CLIPVisionEncode", (940, 160), 260, crop=crop)
    graph.node("condition", "Hunyuan3Dv2Conditioning", (1290, 160), 260)
    graph.node("empty", "EmptyLatentHunyuan3Dv2", (1290, 320), 260, resolution=latent)
    graph.node(
        "sample", "KSampler", (1640, 0), 280, seed=0, steps=steps, cfg=cfg, sampler_name="euler", scheduler="normal"
    )
    graph.node("decode", "VAEDecodeHunyuan3D", (2010, 0), 280, num_chunks=8000, octree_resolution=256)
    graph.node("surface", "VoxelToMesh", (2380, 0), 260, algorithm="surface net", threshold=0.6)
    graph.link(
        "load.MODEL > shift.model", "load.CLIP_VISION > see.clip_vision", "image.IMAGE > see.image",
        "see.CLIP_VISION_OUTPUT > condition.clip_vision_output", "shift.MODEL > sample.model",
        "condition.positive > sample.positive", "condition.negative > sample.negative",
        "empty.LATENT > sample.latent_image", "sample.LATENT > decode.samples", "decode.VOXEL > surface.voxel",
    )  # fmt: skip
    graph.link("load.VAE > decode.vae", via=[(870, LINE), (1960, LINE)])
    textured(graph, 2720, "surface.MESH", [(870, 640), (3050, 640)], ((470, 720), (2670, 720)), True)
    box(graph, "core_shape", SHAPE, 480, -80, 2660, 700)
    return graph


def textured(graph: Graph, x: float, mesh: str, picture: Any, preset: Any, cleaned: bool) -> None:
    """Adds Clean Mesh, Texture a Mesh, Save 3D Model. The picture's and the preset's wires run under the nodes."""
    if cleaned:
        graph.node("clean", "CleanMesh", (x, 0), 260)
        graph.link(f"{mesh} > clean.mesh")
        graph.bus("preset.preset", [(preset[0], ""), (preset[1], "clean.preset"), ((x + 320, preset[1][1]), "")])
        mesh, x = "clean.mesh", x + 370
    graph.subgraph("texture", texture_only(), (x, 0), 340)
    graph.link(f"{mesh} > texture.mesh")
    graph.link("image.IMAGE > texture.image", "image.MASK > texture.mask", via=picture)
    last = [(x - 50, preset[1][1])] if cleaned else []
    graph.link("preset.preset > texture.preset", via=[*preset, *last])
    graph.node("save", "SaveGLB", (x + 420, 0), 640, 640, filename_prefix=SAVE)
    graph.link("texture.mesh > save.mesh")


def core_mesh_tools() -> Graph:
    """ComfyUI's mesh nodes before and after the texture."""
    graph = start("with_core_mesh_tools")
    load_picture(graph, (520, 320))
    graph.node("mesh", "LoadMesh", (520, 0), 300, LOAD_MESH_PX, file="mesh.glb")
    # Remesh cuts off what is outside of a cube with sides of 1, so Clean Mesh scales the mesh first; all faces stay.
    # With udf it would make two surfaces, one inside the other.
    graph.node("clean", "CleanMesh", (920, 0), 280, face_budget=10_000_000, longest_side=1.0)
    graph.node("holes", "FillHoles", (1290, 0), 280)
    graph.node("remesh", "RemeshMesh", (1650, 0), 330, resolution=256, sign_mode="sdf")
    graph.node("decimate", "DecimateMesh", (2050, 0), 280, target_face_count=40000, placement_mode="midpoint")
    graph.link(
        "mesh.mesh > clean.mesh", "clean.mesh > holes.mesh", "holes.mesh > remesh.mesh", "remesh.mesh > decimate.mesh"
    )
    graph.subgraph("texture", texture_only(), (2420, 0), 340)
    graph.link("decimate.mesh > texture.mesh")
    graph.link("image.IMAGE > texture.image", "image.MASK > texture.mask", via=[(870, 640), (2380, 640)])
    graph.bus("preset.preset", [((470, 720), ""), ((880, 720), "clean.preset"), ((2370, 720), "texture.preset")])
    graph.node("file", "MeshToFile3D", (2850, 0), 260)
    graph.node("save", "SaveGLB", (3200, 0), 640, 560, filename_prefix=SAVE)
    graph.node("render", "RenderMesh", (2850, 640), 280, background="#ffffff")
    graph.node("view", "PreviewImage", (3200, 640), 400, 420)
    graph.link(
        "texture.mesh > file.mesh",
        "file.model_3d > save.mesh",
        "texture.mesh > render.mesh",
        "render.image > view.images",
    )
    box(graph, "core_tools", SHAPE, 900, -80, 2350, 560)
    return graph


def upscaled_views() -> Graph:
    """An upscaler between Paint Views and Bake Texture."""
    graph = hunyuan3d_8gb()
    other = start("with_upscaled_views")
    graph.name = other.name
    graph.parts["note"] = other.parts["note"]
    return insert_upscaler(graph)


def insert_upscaler(graph: Graph) -> Graph:
    """Moves what follows Paint Views to the right, and puts the upscaler there."""
    wide = 380
    x, y = graph.parts["bake"].pos
    for key in ("bake", "inpaint", "save", "report"):
        part = graph.parts[key]
        part.pos = part.pos[0] + wide, part.pos[1]
    for wire in graph.wires:
        wire.via = tuple(
            (px + wide, py) if px == x - 40 and wire.target[0] == "bake" else (px, py) for px, py in wire.via
        )
    for group in graph.groups:
        group["bounding"][0] += wide if group["bounding"][0] > x else 0
        if group["color"] == TEXTURE:
            group["bounding"][2] += wide
            group["bounding"][3] += 220
    file = "RealESRGAN_x4plus.safetensors"
    url = f"{HUGGING_FACE}/Real-ESRGAN_repackaged/resolve/main/{file}"
    models = [{"name": file, "url": url, "directory": "upscale_models"}]
    graph.node("model", "UpscaleModelLoader", (x - 360, y + 700), 280, models=models, model_name=file)
    graph.node("upscale", "ImageUpscaleWithModel", (x, y + 160), 300)
    graph.wires = [wire for wire in graph.wires if wire.target != ("bake", "images")]
    graph.link(
        "paint.images > upscale.image", "model.UPSCALE_MODEL > upscale.upscale_model", "upscale.IMAGE > bake.images"
    )
    return graph


def folder_of_pictures() -> Graph:
    """Every picture of a folder becomes a mesh."""
    graph = start("with_folder_of_pictures")
    graph.node("image", "LoadPictures", (520, 0), 300, folder="my_pictures")
    simple(graph, "image.image", "image.mask")
    return graph


WORKFLOWS: dict[str, Any] = {
    "picture_to_mesh": picture_to_mesh,
    "hunyuan3d_8gb": hunyuan3d_8gb,
    "four_views_to_mesh": four_views_to_mesh,
    "texture_own_mesh": texture_own_mesh,
    "with_core_shape_2_0": lambda: core_shape("2_0", 20, 8.0, 3072, "none"),
    "with_core_shape_2_1": lambda: core_shape("2_1", 30, 5.0, 4096, "center"),
    "with_core_mesh_tools": core_mesh_tools,
    "with_upscaled_views": upscaled_views,
    "with_folder_of_pictures": folder_of_pictures,
}
