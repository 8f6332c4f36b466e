"""Hunyuan3D Low VRAM for ComfyUI."""

from importlib.util import find_spec
from inspect import signature

WEB_DIRECTORY = "./web"
WANTED_VERSION = "0.21.1"


def check_comfyui() -> None:
    """Raises RuntimeError if this ComfyUI has no MESH type, or if its MESH has no UVs and texture."""
    try:
        from comfy_api.latest import Types

        carries = signature(Types.MESH.__init__).parameters.keys()
    except (ImportError, AttributeError) as error:
        raise RuntimeError(_too_old(f"this ComfyUI has no MESH ({error})")) from error
    if not {"uvs", "texture"} <= carries:
        raise RuntimeError(_too_old("this ComfyUI's MESH has no UVs and texture"))


def _too_old(met: str) -> str:
    return f"Hunyuan3D Low VRAM: {met}; wanted ComfyUI {WANTED_VERSION} or newer. Update ComfyUI."


if find_spec("folder_paths") is not None:  # only inside ComfyUI: tests and build tools import this file, too
    check_comfyui()
    from .nodes import comfy_entrypoint

__all__ = ["WEB_DIRECTORY", "comfy_entrypoint"]
