"""Streaming: a layer's weights are on the device only while it runs, also after errors.

The device is torch's meta device. A layer's result is there only if its weights and inputs were moved there.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from torch import Tensor, nn

from lowvram_core.app.torch_host import TorchHost
from lowvram_core.host import Component
from lowvram_core.lending.streaming import streamed
from lowvram_core.networks.delight import open_delight
from lowvram_core.networks.paint import open_paint
from lowvram_core.networks.shape import open_shape
from lowvram_core.presets import Residency
from lowvram_core.stages.paint import _Halves

THERE = torch.device("meta")
FLOAT = torch.float32
Run = Callable[[Any], Tensor]


def there(*shape: int) -> Tensor:
    return torch.zeros(*shape, device=THERE)


def parts(models: Path) -> dict[str, tuple[Component, Run]]:
    """Every network, with a call as in its stage."""
    shape = open_shape(models / tiny.VARIANTS["v2-0"], FLOAT)
    mv = open_shape(models / tiny.VARIANTS["mv"], FLOAT)
    delight, paint = (
        open_delight(models / "hunyuan3d-delight-v2-0", FLOAT),
        open_paint(models / "hunyuan3d-paint-v2-0", FLOAT),
    )
    references = {"layer": there(2, 16, 16)}
    picture = torch.zeros(1, 3, 56, 56)

    def read_reference(dual: Any) -> Tensor:
        references.clear()
        references.update(dual(there(2, 4, 16, 16)))
        return next(iter(references.values()))

    def paint_step(unet: Any) -> Tensor:
        text = unet.unet.learned_text_clip_gen.to(THERE)
        classes = torch.zeros(1, 3, dtype=torch.long, device=THERE)
        halves = _Halves(unet, there(3, 8, 16, 16), torch.cat([text, text]), classes, True)
        halves.references = references
        return halves.run(there(3, 4, 16, 16), torch.tensor(5), slice(0, 3), together=False)[0]

    def condition(conditioner: Any) -> Tensor:
        tokens: Tensor = conditioner(image=picture)["main"]
        return torch.cat([tokens, conditioner.unconditional_embedding(1, image=picture)["main"].to(tokens)])

    return {
        "conditioner": (shape.conditioner, condition),
        "mv conditioner": (mv.conditioner, lambda m: m(image=picture[None], view_idxs=[[0]])["main"]),
        "dit": (shape.dit, lambda m: m(there(1, *shape.latent_shape), there(1), {"main": there(1, 17, 32)},
                                       guidance=None)),
        "shape vae": (shape.vae, lambda m: m.geo_decoder(queries=there(1, 50, 3),
                                                         latents=m(there(1, *shape.latent_shape)))),
        "text encoder": (delight.text_encoder, lambda m: m()),
        "vae encode": (delight.vae, lambda m: m.encode(there(1, 3, 64, 64)).latent_dist.mode()),
        "vae decode": (delight.vae, lambda m: m.decode(there(1, 4, 8, 8)).sample),
        "delight unet": (delight.unet, lambda m: m(there(1, 8, 16, 16), torch.tensor(3.0),
                                                   encoder_hidden_states=there(1, 77, 32))[0]),
        "dual": (paint.dual, read_reference),
        "main": (paint.main, paint_step),
    }  # fmt: skip


def weights(module: nn.Module) -> dict[str, Tensor]:
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


@pytest.mark.filterwarnings("ignore:for .*meta.*copying:UserWarning")
@torch.inference_mode()
def test_every_network_computes_on_the_device_and_rests_off_it(models: Path) -> None:
    visits: list[set[torch.device]] = []
    for name, (component, run) in parts(models).items():
        module = component.load()
        before = weights(module)
        visits.clear()
        leaves = [leaf for leaf in module.modules() if leaf._parameters]
        with streamed(module, THERE):
            for leaf in leaves:
                leaf.register_forward_pre_hook(
                    lambda leaf, _: visits.append({one.device for one in leaf.parameters(recurse=False)})
                )
            assert run(module).device == THERE, name
        assert visits and all(devices <= {THERE} for devices in visits), name
        after = weights(module)
        assert all(after[key] is value for key, value in before.items()), f"{name}: the tensors that were mapped"


class Nested(nn.Module):
    """A module with weights and a buffer of its own around a layer, and with a second layer that shares the weight."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.full((3,), 2.0))
        self.register_buffer("shift", torch.ones(3))
        self.inner = nn.Linear(3, 3)
        self.tied = nn.Linear(3, 3)
        self.tied.weight = self.inner.weight
        self.attention = nn.MultiheadAttention(3, 1, batch_first=True)
        self.error: BaseException | None = None
        self.at_error: list[torch.device] = []

    def forward(self, x: Tensor) -> Tensor:
        """[N,3] to [N,3]."""
        x = self.tied(self.inner(x * self.scale + self.shift))
        if self.error is not None:
            self.at_error = [self.scale.device, self.inner.weight.device]
            raise self.error
        attended: Tensor = self.attention(x[None], x[None], x[None])[0][0]
        return attended


def test_what_comes_out_is_equal_in_every_bit() -> None:
    torch.manual_seed(0)
    module = Nested()
    x = torch.randn(5, 3)
    with torch.inference_mode():
        plain = module(x)
        with streamed(module, torch.device("cpu")):
            assert torch.equal(module(x), plain)
        assert torch.equal(module(x), plain)


def test_inputs_are_brought() -> None:
    module = Nested()
    with torch.inference_mode(), streamed(module, THERE):
        assert module(torch.zeros(5, 3)).device == THERE


def test_a_container_that_is_written_to_stays_itself() -> None:
    class Writes(nn.Linear):
        def forward(self, x: Tensor, out: dict[str, Tensor]) -> None:  # type: ignore[override]
            out["y"] = super().forward(x)

    module, found = Writes(2, 2), {}
    with torch.inference_mode(), streamed(module, THERE):
        module(torch.zeros(1, 2), out=found)
    assert found["y"].device == THERE


@pytest.mark.parametrize("error", [RuntimeError("in the middle"), KeyboardInterrupt()])
def test_a_forward_that_breaks_off_leaves_nothing_there(error: BaseException) -> None:
    module = Nested()
    before = weights(module)
    module.error = error
    with pytest.raises(type(error)), torch.inference_mode(), streamed(module, THERE):
        module(torch.zeros(5, 3))
    assert module.at_error == [THERE, torch.device("cpu")], "the layer around was there, the inner one back"
    assert all(weights(module)[key] is value for key, value in before.items())
    assert not any(part._forward_pre_hooks or part._forward_hooks for part in module.modules())


@pytest.mark.parametrize("residency", ["stream", "free", "keep"])
def test_after_give_back_every_weight_is_freed(models: Path, residency: Residency) -> None:
    host = TorchHost(torch.device("cpu"), residency=residency)
    for name, (component, _) in parts(models).items():
        with host.borrow(component) as module:
            assert not any(tensor.is_meta for tensor in weights(module).values())
        host.release()
        assert all(tensor.is_meta for tensor in weights(module).values()), name
        with pytest.raises(ZeroDivisionError), host.borrow(component) as module:
            _ = 1 / 0
        assert all(tensor.is_meta for tensor in weights(module).values()), name
