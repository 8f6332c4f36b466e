"""Links from stages to presets become the values that the stage reads."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from comfy_pack import PREFIX, Pack, module

Prompt = dict[str, dict[str, Any]]


def prompt_of(preset: dict[str, Any]) -> Prompt:
    """One preset node and each stage."""
    stages = module("nodes._prompts").STAGES
    graph = {name: {"class_type": PREFIX + name, "inputs": {"preset": ["p", 0], "seed": 1}} for name in stages}
    others = {name: {"class_type": name, "inputs": {"preset": ["p", 0]}} for name in ("SaveGLB", "Delight")}
    return {"p": preset, "other": others["SaveGLB"], "another pack's": others["Delight"], **graph}


def changed(prompt: Prompt) -> Prompt:
    before = copy.deepcopy(prompt)
    result: Prompt = module("nodes._prompts").with_constants(prompt)
    assert prompt == before, "the given prompt stays as it is"
    return result


def kinds_of_presets(pack: Pack) -> list[str]:
    gives = {name: [out.io_type for out in node.GET_SCHEMA().outputs] for name, node in pack.by_id.items()}
    return [name for name, kinds in gives.items() if kinds == ["HY3D_PRESET"]]


def test_every_preset_node_and_every_stage(pack: Pack) -> None:
    for kind in kinds_of_presets(pack):
        inputs = {
            item.id: item.default
            for item in pack.by_id[kind].GET_SCHEMA().inputs
            if not item.optional and getattr(item, "default", None) is not None
        }
        prompt = prompt_of({"class_type": PREFIX + kind, "inputs": inputs})
        result = changed(prompt)
        preset = pack.by_id[kind].settings(**inputs)
        values = module("lowvram_core.stage_values")
        for name, stages in module("nodes._prompts").STAGES.items():
            assert result[name]["inputs"] == {"preset": values.read_values(preset, stages), "seed": 1}, kind
        assert all(result[name] == prompt[name] for name in ("other", "another pack's", "p"))


def test_every_node_with_a_preset_is_a_stage_that_is_known(pack: Pack) -> None:
    """A new stage node must say what it runs, or each change of its preset runs it again."""
    with_preset = {
        name for name, node in pack.by_id.items() if any(item.id == "preset" for item in node.GET_SCHEMA().inputs)
    }
    choosing = {name for name in kinds_of_presets(pack)}
    assert module("nodes._prompts").STAGES.keys() <= with_preset - choosing
    assert with_preset - choosing - module("nodes._prompts").STAGES.keys() <= {"ModelCheck", "PresetToJson"}


@pytest.mark.parametrize(
    "preset",
    [
        {"class_type": "Reroute", "inputs": {}},
        {"class_type": PREFIX + "Preset", "inputs": {"preset": ["q", 0]}},
        {"class_type": PREFIX + "Preset", "inputs": {"preset": "9 GB"}},
        {"class_type": PREFIX + "Preset4GB", "inputs": {"unknown": 3}},
        {"class_type": PREFIX + "PresetCustom", "inputs": {"octree": 5}},
        {"class_type": PREFIX + "PresetCustom", "inputs": {"octree": "128"}},
        {"class_type": PREFIX + "CleanMesh", "inputs": {}},
    ],
)
def test_links_stay_where_the_preset_is_not_known(pack: Pack, preset: dict[str, Any]) -> None:
    """Another node makes it, or its run will meet an error, which ComfyUI shows on the preset node."""
    prompt = prompt_of(preset)
    assert changed(prompt) == prompt
    assert changed({**prompt, "p": {}}) == {**prompt, "p": {}}
    prompt["CleanMesh"]["inputs"] = {}
    assert changed(prompt) == prompt


def test_a_stage_takes_its_values(pack: Pack, ball: Any) -> None:
    """The same mesh by a link, by the values, and by the preset's name."""
    preset = module("lowvram_core.presets").get("8 GB Fast")
    values = module("lowvram_core.stage_values").read_values(preset, ["clean"])
    by_link, by_values, by_name = (
        pack.run("CleanMesh", mesh=ball, preset=given) for given in (preset, values, "8 gb fast")
    )
    assert by_link.vertices.equal(by_values.vertices) and by_link.vertices.equal(by_name.vertices)
