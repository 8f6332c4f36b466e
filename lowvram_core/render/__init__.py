"""Rasterises meshes, and projects pictures onto textures, in plain torch."""
