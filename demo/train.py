"""Trains the demo checkpoints: `python demo/train.py [shape|texture|pictures|all]`. CPU, one thread, fixed seeds."""

from __future__ import annotations

import argparse
import logging
import tempfile
from pathlib import Path

import torch

HERE = Path(__file__).parent
log = logging.getLogger("demo")
# CPU seconds of each training, on one thread.
SECONDS = {
    "decoder": 120,
    "encoder": 600,
    "flow": 60,
    "autoencoder": 240,
    "delight": 200,
}


def train_shape(cache: Path, root: Path, scale: float) -> None:
    """Trains the decoder, the encoder, then the five flow models on the encoder's output."""
    from training import export, shape, shape_decoder, shape_pictures

    decoder = shape_decoder.train(SECONDS["decoder"] * scale, 1, cache / "shape_decoder.pt").state_dict()
    front = shape_pictures.trace(3000, 11, 1, cache)
    encoder = shape.train_encoder(front, SECONDS["encoder"] * scale, 2, cache / "encoder.pt")
    one = shape.features(encoder, front, 2, 3)
    four = shape.features(encoder, shape_pictures.trace(350, 12, 4, cache), 3, 4)
    states: dict[bool, dict] = {}
    for v in shape.VARIANTS:
        data = four if v.multiview else one
        # A turbo model starts from the weights of the model with guidance of the same family.
        model = shape.train_flow(v, *data, SECONDS["flow"] * scale, 5, states.get(v.multiview))
        states.setdefault(v.multiview, model.state_dict())
        export.shape(v, model, decoder, encoder.state_dict(), root)


def train_texture(cache: Path, root: Path, scale: float) -> None:
    """Trains the picture autoencoder, then makes delight and paint on its latents."""
    from training import autoencoder, bank, delight, export, paint

    solids = bank.make(90, 1, cache)
    at = cache / "autoencoder.pt"
    autoencoder.train(solids, SECONDS["autoencoder"] * scale, 1, at)
    factor = autoencoder.load(at).config.scaling_factor
    text = export.empty_prompt(delight.TEXT_DIM)
    light, many = cache / "delight.pt", cache / "paint.pt"
    delight.train(solids, factor, text, SECONDS["delight"] * scale, 6, light)
    latents = paint.prepare(solids, factor, 7)
    paint.fit(latents, factor, 8, many)
    states = (torch.load(p, weights_only=True) for p in (light, many))
    export.delight(delight.CONFIG, next(states), autoencoder.load(at), delight.TEXT_DIM, root)
    export.paint(paint.CONFIG, next(states), autoencoder.load(at), delight.TEXT_DIM, root)


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", nargs="?", default="all", choices=["shape", "texture", "pictures", "all"])
    parser.add_argument("--out", type=Path, default=HERE)
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "demo_train_cache")
    parser.add_argument("--scale", type=float, default=1.0, help="multiplies every training time")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    torch.set_num_threads(1)
    args.cache.mkdir(parents=True, exist_ok=True)
    if args.what in ("shape", "all"):
        train_shape(args.cache, args.out, args.scale)
    if args.what in ("texture", "all"):
        train_texture(args.cache, args.out, args.scale)
    if args.what in ("pictures", "all"):
        from training import photograph

        photograph.write(args.out / "pictures")


if __name__ == "__main__":
    main()
