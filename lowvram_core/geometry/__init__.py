"""Geometry of meshes: welding, repair, decimation, surface extraction, UVs."""
