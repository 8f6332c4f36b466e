"""Lending networks to stages: the memory of the device, and weights that stream through it layer by layer."""
