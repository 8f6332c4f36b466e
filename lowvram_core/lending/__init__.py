"""Weights on loan: the device and its memory, and weights that pass through it layer by layer."""
