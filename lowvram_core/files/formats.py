"""The file formats of meshes and textures, declared once.

Imports nothing, so that nodes can read it before any package is there.
"""

WRITABLE_MESHES = (".glb", ".obj", ".ply", ".stl", ".gltf")
"""Formats that meshes are saved in, the default first."""

READABLE_MESHES = (".glb", ".gltf", ".obj", ".ply", ".stl", ".off")
"""Formats that meshes are loaded from."""

OTHER_MESHES = (
    *(ending for ending in READABLE_MESHES if ending not in WRITABLE_MESHES),
    ".fbx", ".usd", ".usda", ".usdc", ".usdz", ".dae", ".3mf", ".3ds", ".blend", ".x3d", ".abc", ".vrm", ".step",
    ".stp", ".iges",
)  # fmt: skip
"""Formats that are not written. An output name that ends in one of them is a mistake, not the name of a folder."""

TEXTURE_FORMATS = ("png", "jpeg", "webp")
"""Formats of the texture inside a .glb or .gltf, the default first."""

TEXTURE_QUALITY = 90
"""Of JPEG and WebP, unless another is chosen."""
