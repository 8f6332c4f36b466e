"""Runs what `make bench-decode` runs, on the CPU and, as on a GPU, on the device that counts bytes."""

from __future__ import annotations

from pathlib import Path

import decode
import pytest
import tiny
import torch
from counted import counted, ledger

KEYS = ["shape", "logits", "octree", "mode", "queries", "share", "seconds", "ram_mib", "faces", "identical",
        "lost_parts", "lost_kept_by_clean"]  # fmt: skip


def check(rows: list[decode.Row], octree: int) -> None:
    """Every dense row is followed by a sparse one with the same mesh from fewer points."""
    compared = [row for row in rows if row["octree"] == octree]
    assert compared and len(compared) % 2 == 0
    for dense, sparse in zip(compared[::2], compared[1::2], strict=True):
        assert list(dense) == list(sparse) == KEYS
        assert (dense["mode"], sparse["mode"]) == ("dense", "sparse")
        assert dense["queries"] == (octree + 1) ** 3 > sparse["queries"] > 0
        assert sparse["identical"] and sparse["lost_parts"] == 0 and sparse["faces"] == dense["faces"] > 0
        assert dense["seconds"] >= 0 <= sparse["seconds"]


def test_on_a_device(tmp_path: Path) -> None:
    folder = tiny.make_shape(tmp_path)
    with counted() as device, ledger.set(cap=2**50, limit=2**40):
        rows = list(decode.on_device(device, folder, [96], [32], warm_up=16))
        assert ledger.current == 0
    check(rows, 96)
    assert [row["shape"] for row in rows if row["octree"] == 32] == ["sphere", "chair", "gyroid"]


@pytest.mark.parametrize("kind", ["slow", "steep"])
def test_a_network_of_the_demo(kind: str) -> None:
    changes = {"slow": torch.clone, "steep": decode._steep}
    with decode.demo_field("v2-0-turbo", 0) as field:
        how = decode.asking(torch.device("cpu"), 4000, torch.float32)
        rows = list(decode.rows_of("demo", field, 96, how, {kind: changes[kind]}))
    check(rows, 96)


def test_lost_parts_are_counted() -> None:
    def balls(radius: float) -> decode.Mesh:
        import fields

        def distance(points: torch.Tensor) -> torch.Tensor:
            small = radius - (points - torch.tensor([0.7, 0.3, 0.2])).norm(dim=1)
            return torch.maximum(0.4 - points.norm(dim=1), small)

        how = decode.asking(torch.device("cpu"), 8000, torch.float32)
        return decode.surface(fields.logits(distance, fields.SLOW), 64, how, edge=1)

    assert decode._lost(balls(0.2), balls(-1)) == (1, 1)
    assert decode._lost(balls(0.035), balls(-1))[0] == 1
    assert decode._lost(balls(0.2), balls(0.2)) == (0, 0)
