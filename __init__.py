"""Hunyuan3D Low VRAM for ComfyUI."""

from importlib.util import find_spec

WEB_DIRECTORY = "./web"

if find_spec("comfy_api") is not None:  # imported by ComfyUI, not by a test or a build tool
    from .nodes import comfy_entrypoint

__all__ = ["WEB_DIRECTORY", "comfy_entrypoint"]
