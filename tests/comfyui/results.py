"""What the tests check of a saved mesh."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import trimesh


def textured(path: Path) -> trimesh.Trimesh:
    """Loads the GLB's mesh. Checks that it has UVs and a texture of several colours."""
    mesh = trimesh.load(path, force="mesh", process=False)
    picture = np.asarray(mesh.visual.material.baseColorTexture.convert("RGB"))
    assert mesh.visual.uv.shape == (len(mesh.vertices), 2)
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 50
    return mesh
