"""What a run cost, on the nodes and in Memory Report."""

from __future__ import annotations

import inspect
import json
import re
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from comfy_mesh import MeshData
from comfy_pack import PREFIX, ROOT, Pack, module
from PIL import Image
from torch import Tensor

Prompt = dict[str, dict[str, Any]]


class Queue:
    """Prompts as ComfyUI's server runs them, one node at a time; the server itself is not there."""

    def __init__(self, pack: Pack, monkeypatch: pytest.MonkeyPatch) -> None:
        self.pack = pack
        self.prompt: Prompt = {}
        self.now = SimpleNamespace(prompt_id="", node_id="")
        records, host = module("nodes._records"), module("nodes._host")
        monkeypatch.setattr(records, "executing", lambda: self.now)
        monkeypatch.setattr(records, "_runs", type(records._runs)())
        monkeypatch.setattr(host, "_running_prompt", lambda: self.prompt)
        monkeypatch.setattr(host.ComfyHost, "progress", lambda self, *rest: None)
        monkeypatch.setattr(host.ComfyHost, "_show", lambda self, *rest: None)
        monkeypatch.setattr(module("nodes._pictures"), "shown", lambda images: {})

    def run(self, prompt_id: str, node_id: str, **given: Any) -> Any:
        """The node's output, with its class out of the prompt."""
        self.now.prompt_id, self.now.node_id = prompt_id, node_id
        kind = self.prompt[node_id]["class_type"].removeprefix(PREFIX)
        return self.pack.output(kind, hidden={"prompt": self.prompt, "unique_id": node_id}, **given)

    def report(self, prompt_id: str, node_id: str, mesh: MeshData) -> list[str]:
        """The lines of Memory Report."""
        return str(self.run(prompt_id, node_id, mesh=[mesh]).args[1]).splitlines()


@pytest.fixture
def queue(pack: Pack, monkeypatch: pytest.MonkeyPatch) -> Queue:
    """Nothing recorded yet."""
    return Queue(pack, monkeypatch)


def graph(budget: int = 0, name: str = "{}") -> Prompt:
    """Load Mesh, Clean Mesh, Unwrap UVs, Memory Report; the ids are 1 to 4 in that name."""
    one, two, three, four = (name.format(number) for number in "1234")
    return {
        one: {"class_type": PREFIX + "LoadMesh", "inputs": {"file": "mesh.glb"}},
        two: {"class_type": PREFIX + "CleanMesh", "inputs": {"mesh": [one, 0], "face_budget": budget}},
        three: {"class_type": PREFIX + "UnwrapUVs", "inputs": {"mesh": [two, 0]}},
        four: {"class_type": PREFIX + "MemoryReport", "inputs": {"mesh": [three, 0]}},
    }


def marks(lines: list[str]) -> dict[str, bool]:
    """Whether each step is marked as cached."""
    other = ("total", "this run", "with cached", "other")
    return {line.split()[0]: line.endswith("cached") for line in lines[1:] if not line.startswith(other)}


def test_steps_of_this_prompt_and_of_the_one_before(queue: Queue, ball: MeshData, preset: Any) -> None:
    queue.prompt = graph()
    queue.run("first", "2", mesh=ball, preset=preset)
    queue.run("second", "3", mesh=ball, preset=preset)
    output = queue.run("second", "4", mesh=[ball])
    (mesh,), text = output.args
    assert mesh is ball and output.ui["text"] == [text]
    assert marks(text.splitlines()) == {"clean": True, "unwrap": False}
    queue.prompt["5"] = {"class_type": PREFIX + "CleanMesh", "inputs": {"mesh": ["3", 0]}}
    queue.prompt["4"]["inputs"]["mesh"] = ["5", 0]
    queue.run("second", "5", mesh=ball, preset=preset)
    cleaned = [line.endswith("cached") for line in queue.report("second", "4", ball) if line.startswith("clean ")]
    assert sorted(cleaned) == [False, True], "one of two nodes with the same step is cached"
    queue.now.node_id = "5"
    module("nodes._host").ComfyHost().note("clean: little memory: by the test")
    assert queue.report("second", "4", ball)[-1] == "clean: little memory: by the test"


def test_this_run_and_what_was_cached(queue: Queue, ball: MeshData, preset: Any) -> None:
    """The totals: a node's whole time counts, not only its phases."""
    queue.prompt = graph()
    queue.run("first", "2", mesh=ball, preset=preset)
    first = queue.report("first", "4", ball)
    assert first[0].split() == ["phase", "seconds", "share", "RAM", "GiB"], "no columns of a device that counts nothing"
    assert first[-1].startswith("total ") and any(line.startswith("other ") for line in first)
    records = module("nodes._records")
    run, last = (records.signatures(queue.prompt, [node])[node] for node in "23")
    run = records._runs[run]
    assert f"{run.seconds:.2f}" in first[-1] and run.seconds > sum(record.seconds for record in run.records)
    queue.run("second", "3", mesh=ball, preset=preset)
    *_, this, every = queue.report("second", "4", ball)
    last = records._runs[last]
    assert this.startswith("this run ") and f"{last.seconds:.2f}" in this
    assert every.startswith("with cached ") and f"{run.seconds + last.seconds:.2f}" in every


def test_values_that_were_left_and_taken_up_again(queue: Queue, ball: MeshData, preset: Any) -> None:
    """A, then B, then A again: ComfyUI still has what came of A, so its steps are in the table, as cached."""
    for prompt_id, budget in (("first", 100), ("second", 200)):
        queue.prompt = graph(budget)
        queue.run(prompt_id, "2", mesh=ball, preset=preset)
        queue.run(prompt_id, "3", mesh=ball, preset=preset)
        assert marks(queue.report(prompt_id, "4", ball)) == {"clean": False, "unwrap": False}
    queue.prompt = graph(100)
    assert marks(queue.report("third", "4", ball)) == {"clean": True, "unwrap": True}
    queue.prompt = graph(300)
    assert marks(queue.report("fourth", "4", ball)) == {}


def test_the_same_graph_with_other_ids(queue: Queue, ball: MeshData, preset: Any) -> None:
    """From another tab: the cache knows no ids."""
    queue.prompt = graph(100)
    queue.run("first", "2", mesh=ball, preset=preset)
    queue.run("first", "3", mesh=ball, preset=preset)
    queue.prompt = graph(100, name="tab:{}")
    assert marks(queue.report("second", "tab:4", ball)) == {"clean": True, "unwrap": True}


def test_two_equal_nodes_are_one_in_the_cache(queue: Queue, ball: MeshData, preset: Any) -> None:
    queue.prompt = graph(100)
    queue.prompt["2b"] = dict(queue.prompt["2"])
    queue.prompt["3"]["inputs"]["other"] = ["2b", 0]
    queue.run("first", "2", mesh=ball, preset=preset)
    records = module("nodes._records").of(queue.prompt, {"2", "2b"})[0]
    assert [record.name for record in records] == ["clean", "other"]


def test_the_oldest_records_go(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    records = module("nodes._records")
    monkeypatch.setattr(records, "KEPT", 3)
    for budget in (0, 1, 2, 0, 3):
        queue.prompt, queue.now.node_id = graph(budget), "2"
        module("nodes._host").ComfyHost()
    kept = {records.signatures(graph(budget), ["2"])["2"] for budget in (2, 0, 3)}
    assert set(records._runs) == kept


NO_WORK = ("Preset8GBFast", "PresetAuto", "PresetCustom", "LoadPictures", "LoadMesh", "MeshToTrimesh", "TrimeshToMesh",
           "MemoryReport")  # fmt: skip
"""Nodes that run no step."""


@pytest.mark.parametrize("node", [*NO_WORK, "CleanMesh", "Turntable"])
def test_every_node_has_a_badge(
    pack: Pack, comfy: Path, ball: MeshData, preset: Any, picture: Tensor, monkeypatch: pytest.MonkeyPatch, node: str
) -> None:
    """Seconds, and the peak where the device counts."""
    (other,) = pack.run("MeshToTrimesh", mesh=ball)
    other.export(comfy / "input" / "mesh.glb")
    Image.fromarray((picture[0] * 255).byte().numpy()).save(comfy / "input" / "a.png")
    own = {"mesh": [ball] if node == "MemoryReport" else ball, "trimesh": other, "preset": preset}
    wanted = {item.id for item in pack.by_id[node].GET_SCHEMA().inputs}
    given = {name: value for name, value in own.items() if name in wanted}
    ui = pack.output(node, **given).ui
    assert [0 <= seconds < 60 for seconds in ui["hy3d_seconds"]] == [True] and ui["hy3d_peak_bytes"] == []
    if node in NO_WORK:
        monkeypatch.setattr(module("nodes._host"), "memory_of", lambda device: object())
        assert pack.output(node, **given).ui["hy3d_peak_bytes"] == [0]


def test_every_node_that_runs_hands_out_its_badge(pack: Pack) -> None:
    for node in pack.nodes:
        assert "host.badge()" in inspect.getsource(node.execute).replace("ComfyHost().badge()", "host.badge()"), node


def test_cost_of_a_list(tmp_path: Path) -> None:
    """The front end's own arithmetic: seconds added up, the highest peak."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("Node.js is not installed")
    source = (ROOT / "web" / "lowvram.js").read_text(encoding="utf-8")
    function = re.search(r"^function costText.*?^}\n", source, re.MULTILINE | re.DOTALL)
    assert function is not None
    gib = 2**30
    calls = [([1.5, 2.5], [gib, 3 * gib]), ([0.25], []), ([0.1], [0])]
    lines = [
        f"console.log(costText({json.dumps({'hy3d_seconds': seconds, 'hy3d_peak_bytes': peaks})}))"
        for seconds, peaks in calls
    ]
    program = "\n".join([f"const GIB = {gib};", function[0], *lines])
    done = subprocess.run([node, "-e", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines() == ["3.00 GiB · 4.0 s", "0.3 s", "0.00 GiB · 0.1 s"]
