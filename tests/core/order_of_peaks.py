"""Compares streamed with resident weights on any host: equal results, lower peaks, nothing left on the device.

This runs in the tests' own Python and in ComfyUI's, where the core has another module name. So the core is a
parameter, not an import.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from counted import ledger
from torch import Tensor, nn

TOLERANCE = 1e-5
COMPONENTS = {
    "shape": {"image encoder (DINOv2)", "shape DiT", "shape VAE"},
    "delight": {"delight text encoder", "delight VAE", "delight UNet"},
    "paint": {"paint VAE", "paint dual UNet", "paint UNet"},
}
SETTINGS: dict[str, Any] = {
    "octree": 16, "points_per_chunk": 2000, "shape_steps": 2, "delight_steps": 2, "paint_steps": 1,
    "views": "minimal", "render_px": 128,
}  # fmt: skip
Core = Callable[[str], ModuleType]
Stage = Callable[[Any, str], Tensor]
"""Runs a stage with a host and a residency. Returns its result."""


def stages(core: Core, models: Path, **settings: Any) -> dict[str, Stage]:
    """Returns the stages that have networks, on tiny checkpoints. `settings` override SETTINGS."""
    store = core("files.store").ModelStore([models], offline=True)
    preset = core("presets").PRESETS["8 GB Full"].with_(**{**SETTINGS, **settings})
    cutout = core("pictures.convert").cutout_from_rgba(_picture())

    def shape(host: Any, residency: str) -> Tensor:
        mesh = core("stages.shape").generate_shape(cutout, preset.with_(residency=residency), host, store, seed=7)
        assert len(mesh.faces) > 100
        return mesh.vertices

    def delight(host: Any, residency: str) -> Tensor:
        for kept in models.glob("hunyuan3d-delight-*/empty_prompt.*"):
            kept.unlink()  # so that the text encoder runs
        return core("stages.delight").delight(cutout, preset.with_(residency=residency), host, store)

    def paint(host: Any, residency: str) -> Tensor:
        chosen = preset.with_(residency=residency)
        return core("stages.paint").paint_views(_mesh(core), cutout, chosen, host, store).images

    return {"shape": shape, "delight": delight, "paint": paint}


def _picture() -> Any:
    from PIL import Image, ImageDraw

    image = Image.new("RGBA", (160, 120), (0, 0, 0, 0))
    ImageDraw.Draw(image).ellipse((20, 10, 100, 100), fill=(200, 60, 30, 255))
    ImageDraw.Draw(image).rectangle((50, 40, 120, 60), fill=(30, 90, 200, 180))
    return image


def _mesh(core: Core) -> Any:
    vertices = torch.tensor([[0.5, 0, 0], [-0.5, 0, 0], [0, 0.5, 0], [0, -0.5, 0], [0, 0, 0.5], [0, 0, -0.5]])
    faces = torch.tensor([[0, 2, 4], [2, 1, 4], [1, 3, 4], [3, 0, 4], [2, 0, 5], [1, 2, 5], [3, 1, 5], [0, 3, 5]])
    return core("types").Mesh(vertices, faces, uvs=vertices[:, :2] + 0.5)


def compare(name: str, run: Stage, host: Any) -> dict[str, Any]:
    """Runs a stage resident and streamed, and compares the two.

    Returns:
        `worst`: the largest difference, divided by the largest value.
        `peaks`: by component, the peak bytes on the device while it was lent, resident and streamed.
    """
    results, peaks = {}, {}
    for residency in ("free", "stream"):
        with ledger.set(), weighed(host) as seen:
            results[residency] = run(host, residency).clone()
        peaks[residency] = dict(seen)
        assert ledger.current == 0, f"{name}, {residency}: {ledger.current} bytes left"
    worst = float((results["free"] - results["stream"]).abs().max() / results["free"].abs().max())
    assert worst <= TOLERANCE, f"{name}: {worst:.2e} of the largest value"
    assert peaks["free"].keys() == peaks["stream"].keys() == COMPONENTS[name]
    for label, resident in peaks["free"].items():
        assert peaks["stream"][label] < resident, f"{label}: {peaks['stream'][label]} streamed, {resident} resident"
    return {"worst": worst, "peaks": {label: [peaks["free"][label], peaks["stream"][label]] for label in seen}}


@contextmanager
def weighed(host: Any) -> Iterator[dict[str, int]]:
    """Yields the peak bytes while each component was lent, by its label. Checks that its tensors are dropped."""
    lend, peaks = host.borrow, dict[str, int]()

    @contextmanager
    def borrow(component: Any) -> Iterator[nn.Module]:
        ledger.peak = ledger.current
        with lend(component) as module:
            yield module
        left = [name for name, tensor in (*module.named_parameters(), *module.named_buffers()) if not tensor.is_meta]
        assert not left, f"{component.label}: {left[:3]} of {len(left)} tensors were not dropped"
        peaks[component.label] = max(peaks.get(component.label, 0), ledger.peak)

    host.borrow = borrow
    try:
        yield peaks
    finally:
        del host.borrow


@contextmanager
def at_report(host: Any, count: int, act: Callable[[], None]) -> Iterator[None]:
    """Calls `act` at the count-th progress report, while a component is lent."""
    report, seen = host.progress, []

    def progress(*given: Any) -> None:
        seen.append(1)
        if len(seen) == count:
            act()
        report(*given)

    host.progress = progress
    try:
        yield
    finally:
        del host.progress


def fill_up(host: Any, core: Core, models: Path, *, streamed: bool) -> None:
    """Runs a network on a device that has no room for its tenth tensor. There is no stage around it, so no fallback."""
    vae = core("networks.paint").open_paint(models / "hunyuan3d-paint-v2-0", torch.float32).vae
    with (
        torch.inference_mode(),
        host.streaming({vae.key} if streamed else ()),
        host.borrow(vae) as network,
        ledger.set(fail_after=10),
    ):
        network.encode(torch.zeros(1, 3, 64, 64, device=host.device))
    raise AssertionError("there was room")
