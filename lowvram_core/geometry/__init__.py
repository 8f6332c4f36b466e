"""Meshes as arrays: vertices joined and split, surfaces out of fields, UVs."""
