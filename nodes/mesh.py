"""Nodes that clean, unwrap, load, save and convert meshes."""

from __future__ import annotations

from contextlib import ExitStack, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from comfy_api.latest import io

from ..lowvram_core.errors import BadInput
from ..lowvram_core.files.formats import READABLE_MESHES, TEXTURE_FORMATS, TEXTURE_QUALITY, WRITABLE_MESHES
from ..lowvram_core.files.names import is_file
from ..lowvram_core.plans import clean_parts, unwrap_parts
from ..lowvram_core.presets import UNWRAPPERS, VALUES
from ..lowvram_core.types import Mesh
from . import _convert, _host, _pictures
from ._core import core, guarded, stage
from ._schema import (
    File3DType,
    GivenPreset,
    TrimeshType,
    choice_input,
    overridden,
    preset_input,
    preset_of,
    schema,
)

FROM_PATH = "none"
"""The choice of Load Mesh that takes the path in `file`."""


class CleanMesh(io.ComfyNode):
    """MESH to MESH."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """The face budget is the preset's unless set."""
        return schema(
            "CleanMesh", "Clean Mesh",
            "Removes floaters and degenerate faces, repairs non-manifold edges and reduces the mesh to a face budget.",
            ["decimate", "simplify", "repair"],
            inputs=[
                io.Mesh.Input("mesh", tooltip="The mesh to clean. Its UVs and its texture are removed."),
                preset_input(),
                io.Int.Input("face_budget", default=0, min=0, max=int(VALUES["face_budget"].high), step=1000,
                             tooltip="0 takes the preset's. More faces keep more detail and take longer to unwrap."),
                io.Boolean.Input("remove_floaters", default=True,
                                 tooltip="Removes parts with less than 0.5 % of the area and a tenth of the length of "
                                 "the largest part."),
                io.Float.Input("longest_side", default=0.0, min=0.0, max=1000.0, step=0.1, optional=True,
                               tooltip="Centres the mesh and scales it to this length. 0 keeps size and place. 1 fits "
                               "the core's Remesh, which cuts off what lies outside of -0.5 to 0.5."),
            ],
            outputs=[io.Mesh.Output("mesh_out", display_name="mesh")],
        )  # fmt: skip

    @classmethod
    def execute(
        cls, mesh: object, preset: GivenPreset, face_budget: int, remove_floaters: bool, longest_side: float = 0.0
    ) -> io.NodeOutput:
        """A closed mesh stays closed."""
        host = _host.ComfyHost()
        chosen = overridden(preset_of(preset), face_budget=face_budget)
        meshes = _convert.meshes_from_comfy(mesh, "clean", host)
        host.expect(part for item in meshes for part in clean_parts(len(item.faces)))
        cleaned = _convert.one_by_one(
            meshes,
            lambda item: stage("clean").clean(
                item, chosen, host, remove_floaters=remove_floaters, longest_side=longest_side
            ),
        )
        shown = _pictures.of_meshes("wireframe", *cleaned)
        return io.NodeOutput(_convert.meshes_to_comfy(cleaned), ui={**shown, **host.badge()})


class UnwrapUVs(io.ComfyNode):
    """MESH to MESH with UVs."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """ComfyUI's own UnwrapMesh does the same work."""
        return schema(
            "UnwrapUVs", "Unwrap UVs", "Cuts the mesh into charts and lays them out for a texture.",
            ["uv", "atlas", "xatlas"],
            inputs=[
                io.Mesh.Input("mesh", tooltip="A clean mesh."),
                preset_input(),
                io.Boolean.Input("keep_uvs", default=False, tooltip="Keeps the UVs that the mesh already has."),
                choice_input("unwrapper", UNWRAPPERS,
                             "xatlas: the paint model was trained with it. uvunwrap: far faster, with fewer charts."),
            ],
            outputs=[io.Mesh.Output("mesh_out", display_name="mesh")],
        )  # fmt: skip

    @classmethod
    def execute(cls, mesh: object, preset: GivenPreset, unwrapper: str, keep_uvs: bool) -> io.NodeOutput:
        """Vertices are split at the seams."""
        host = _host.ComfyHost()
        chosen = overridden(preset_of(preset), unwrapper=unwrapper)
        meshes = _convert.meshes_from_comfy(mesh, "unwrap", host)
        host.expect(part for item in meshes for part in unwrap_parts(len(item.faces), chosen))
        unwrapped = _convert.one_by_one(
            meshes, lambda item: stage("unwrap").unwrap(item, chosen, host, keep_uvs=keep_uvs)
        )
        shown = _pictures.of_meshes("layout", *unwrapped)
        return io.NodeOutput(_convert.meshes_to_comfy(unwrapped), ui={**shown, **host.badge()})


class LoadMesh(io.ComfyNode):
    """A file to MESH."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """A file out of the folders that `_host.readable` allows, or one that another node hands over."""
        *names, last = (ending[1:].upper() for ending in READABLE_MESHES)
        return schema(
            "LoadMesh", "Load Mesh",
            f"Reads {', '.join(names)} or {last}, with UVs and texture or vertex colours where the file has them. "
            "Parts with several textures get one together.",
            ["import", "glb", "obj", "upload"],
            inputs=[
                io.String.Input("file", default="mesh.glb",
                                tooltip="A file in ComfyUI's input folder, such as 3d/mesh.glb. With [output] after "
                                f"the name, a file in its output folder. {_host.FULL_PATHS}"),
                io.Combo.Input("from_list", options=[FROM_PATH, *_host.input_meshes(READABLE_MESHES)],
                               default=FROM_PATH, optional=True, upload=io.UploadType.model,
                               tooltip="A mesh of ComfyUI's input folder or of its subfolder 3d, where uploads go. "
                               f"{FROM_PATH}: the file that is named above."),
                File3DType.Input("model_file", optional=True,
                                 tooltip="A 3D file of another node, such as Load 3D. It is used in place of the file "
                                 "that is named or chosen here."),
            ],
            outputs=[io.Mesh.Output("mesh", display_name="mesh")],
        )  # fmt: skip

    @classmethod
    def fingerprint_inputs(cls, file: str, from_list: str = FROM_PATH, model_file: Any = None) -> float:
        """Runs again when the file changed."""
        try:
            path = _host.readable(file if from_list == FROM_PATH else from_list, "load")
        except BadInput:
            return 0.0
        return path.stat().st_mtime if is_file(path) else 0.0

    @classmethod
    def execute(cls, file: str, from_list: str = FROM_PATH, model_file: Any = None) -> io.NodeOutput:
        """One mesh; a scene's parts are joined."""
        host = _host.ComfyHost()
        with ExitStack() as open_files:
            if model_file is None:
                path = _host.readable(file if from_list == FROM_PATH else from_list, "load")
            else:
                path = _path_of(model_file, open_files)
            mesh: Mesh = guarded("files.load_meshes").load_mesh(path, host)
        return io.NodeOutput(_convert.mesh_to_comfy(mesh), ui=host.badge())


def _path_of(model_file: Any, open_files: ExitStack) -> Path:
    """The path of a FILE_3D: its own one in the readable folders, so that its textures are found; else a copy.

    The copy is there until `open_files` is closed.
    """
    if not hasattr(model_file, "get_source"):
        raise BadInput(
            f"load: a {type(model_file).__name__} came as a 3D file; wanted one of a node such as Load 3D. Connect it."
        )
    source, ending = model_file.get_source(), f".{model_file.format}"
    if isinstance(source, str):
        with suppress(BadInput):
            path = _host.readable(source, "load")
            if path.suffix.lower() == ending:
                return path
    folder = open_files.enter_context(TemporaryDirectory(prefix="hy3d_"))
    return Path(model_file.save_to(str(Path(folder) / f"model{ending}")))


class SaveMesh(io.ComfyNode):
    """MESH to a file in ComfyUI's output folder."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """An output node. ComfyUI's own Save 3D Model does the same for GLB, with a viewer."""
        return schema(
            "SaveMesh", "Save Mesh", "Writes GLB, glTF or OBJ with the texture, PLY or STL without it.",
            ["export", "glb", "gltf", "obj", "stl"], is_output_node=True,
            inputs=[
                io.Mesh.Input("mesh", tooltip="The mesh to save."),
                io.String.Input("filename_prefix", default="3d/hunyuan3d",
                                tooltip="Folder and name inside ComfyUI's output folder; a number is added."),
                io.Combo.Input("format", options=[ending[1:] for ending in WRITABLE_MESHES], default="glb",
                               tooltip="glb, gltf and obj have the texture, stl and ply only the shape."),
                io.Int.Input("texture_quality", default=TEXTURE_QUALITY, min=1, max=100, optional=True,
                             tooltip="Of jpeg and webp. More is larger and nearer to the original. png keeps every "
                             "colour."),
                io.Combo.Input("texture_format", options=list(TEXTURE_FORMATS), default=TEXTURE_FORMATS[0],
                               optional=True,
                               tooltip="Of the texture inside glb and gltf. png: exact. jpeg: much smaller, and every "
                               "program reads it. webp: smaller still, for programs that know EXT_texture_webp. An "
                               "obj has a png."),
            ],
            outputs=[io.String.Output("path", display_name="path", is_output_list=True,
                                      tooltip="A batch of meshes gives a path each.")],
        )  # fmt: skip

    @classmethod
    def execute(
        cls, mesh: object, filename_prefix: str, format: str,
        texture_quality: int = TEXTURE_QUALITY, texture_format: str = TEXTURE_FORMATS[0],
    ) -> io.NodeOutput:  # fmt: skip
        """The path of each mesh's file."""
        host = _host.ComfyHost()
        coding = core("files.textures").Coding(texture_format, texture_quality)
        shown: list[dict[str, str]] = []

        def save(item: Mesh) -> str:
            path, name, subfolder = _host.output_target(filename_prefix, f".{format}")
            saved: Path = guarded("files.meshes").save(item, path, host, coding)
            shown.append({"filename": name, "subfolder": subfolder, "type": "output"})
            return str(saved)

        paths = _convert.one_by_one(_convert.meshes_from_comfy(mesh, "save", host), save)
        return io.NodeOutput(paths, ui={**host.badge(), "3d": shown})


class MeshToTrimesh(io.ComfyNode):
    """MESH to TRIMESH, the socket of other 3D packs."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """With UVs and texture."""
        return schema(
            "MeshToTrimesh", "Mesh to Trimesh", "Converts a mesh for packs whose sockets carry a trimesh.Trimesh.",
            ["convert", "trimesh"],
            inputs=[io.Mesh.Input("mesh", tooltip="A mesh of ComfyUI's own kind.")],
            outputs=[TrimeshType.Output("trimesh", display_name="trimesh", is_output_list=True,
                                        tooltip="A batch of meshes gives one each.")],
        )  # fmt: skip

    @classmethod
    def execute(cls, mesh: object) -> io.NodeOutput:
        """A trimesh.Trimesh for each mesh."""
        host = _host.ComfyHost()
        converted = _convert.one_by_one(
            _convert.meshes_from_comfy(mesh, "trimesh", host), core("files.meshes").to_trimesh
        )
        return io.NodeOutput(converted, ui=host.badge())


class TrimeshToMesh(io.ComfyNode):
    """TRIMESH, the socket of other 3D packs, to MESH."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """UVs, texture and vertex colours are kept; a scene is joined."""
        return schema(
            "TrimeshToMesh", "Trimesh to Mesh", "Converts a mesh of a pack whose sockets carry a trimesh.Trimesh.",
            ["convert", "trimesh"],
            inputs=[TrimeshType.Input("trimesh", tooltip="A mesh of another 3D pack.")],
            outputs=[io.Mesh.Output("mesh", display_name="mesh")],
        )  # fmt: skip

    @classmethod
    def execute(cls, trimesh: Any) -> io.NodeOutput:
        """A MESH."""
        host = _host.ComfyHost()
        mesh: Mesh = core("files.load_meshes").from_trimesh(trimesh, host)
        return io.NodeOutput(_convert.mesh_to_comfy(mesh), ui=host.badge())
