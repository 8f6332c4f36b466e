"""Triangles to pixels and pixels to texels, in plain torch."""
