"""Hunyuan3D Low VRAM for ComfyUI."""

from importlib.util import find_spec
from inspect import signature

WEB_DIRECTORY = "./web"
WANTED_VERSION = "0.21.1"


def check_comfyui() -> None:
    """Raises RuntimeError where ComfyUI's MESH cannot carry UVs and a texture, or where there is no MESH yet."""
    try:
        from comfy_api.latest import Types

        carries = signature(Types.MESH.__init__).parameters.keys()
    except (ImportError, AttributeError) as error:
        raise RuntimeError(_too_old(f"this ComfyUI has no MESH ({error})")) from error
    if not {"uvs", "texture"} <= carries:
        raise RuntimeError(_too_old("this ComfyUI's MESH has no UVs and texture"))


def _too_old(met: str) -> str:
    return f"Hunyuan3D Low VRAM: {met}; wanted ComfyUI {WANTED_VERSION} or newer. Update ComfyUI."


if find_spec("folder_paths") is not None:  # imported by ComfyUI, not by a test or a build tool
    check_comfyui()
    from .nodes import comfy_entrypoint

__all__ = ["WEB_DIRECTORY", "comfy_entrypoint"]
