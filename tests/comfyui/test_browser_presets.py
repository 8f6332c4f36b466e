"""The preset nodes in the real front end: values on the node, groups of widgets, the search, in both kinds of nodes."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("playwright", reason="playwright is not installed")
from browser import Editor, editor
from comfy_server import CHROMIUM, ROOT, Server

pytestmark = [
    pytest.mark.skipif(not CHROMIUM, reason="no chromium on the path (CHROMIUM may name it)"),
    # Playwright leaves resources to the garbage collector when a test fails.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]
SHOTS = ROOT / "output" / "screenshots"
PREFIX = "Hy3dLowVram_"
VUE = "Comfy.VueNodes.Enabled"
WAIT_MS = 120_000

FRESH = """
(types) => {
  app.graph.clear();
  app.canvas.ds.reset();
  app.graph.state.lastNodeId = Math.floor(1e6 * Math.random());
  return types.map((type, index) => {
    const node = LiteGraph.createNode(type);
    app.graph.add(node);
    node.pos = [200 + 420 * index, 120];
    return String(node.id);
  });
}
"""
VISIBLE = "(id) => app.graph.getNodeById(id).widgets.filter(({hidden}) => !hidden).map(({name}) => name)"
TITLE_AT = """
([id, group]) => {
  const node = app.graph.getNodeById(id);
  const {last_y} = node.widgets.find(({name}) => name === `hy3d_title_${group}`);
  const {scale, offset} = app.canvas.ds;
  const corner = app.canvas.canvas.getBoundingClientRect();
  const at = [node.pos[0] + node.size[0] / 2, node.pos[1] + last_y + 10];
  return [(at[0] + offset[0]) * scale + corner.x, (at[1] + offset[1]) * scale + corner.y];
}
"""


@pytest.fixture(scope="module")
def tab(server: Server) -> Iterator[Editor]:
    """One tab for all tests."""
    with editor(server) as opened:
        yield opened


@pytest.fixture(params=[False, True], ids=["classic", "nodes2"])
def nodes(request: pytest.FixtureRequest, tab: Editor) -> Iterator[bool]:
    """Both kinds of nodes; whether they are Nodes 2.0."""
    tab.js(f"async (on) => app.extensionManager.setting.set('{VUE}', on)", request.param)
    tab.page.wait_for_timeout(2000)
    yield request.param
    tab.js(f"async () => app.extensionManager.setting.set('{VUE}', false)")


def fresh(tab: Editor, *kinds: str) -> list[str]:
    """Nodes side by side in a new graph, whose ids no earlier graph had: the front end remembers values by id."""
    ids: list[str] = tab.js(FRESH, [PREFIX + kind for kind in kinds])
    tab.page.wait_for_timeout(1500)
    return ids


def wait_text(tab: Editor, node_id: str, wanted: str) -> None:
    """Waits until the node's text has these words."""
    tab.page.wait_for_function(
        "([id, wanted]) => app.graph.getNodeById(id).widgets.find(({name}) => name === 'lowvram_text').value"
        ".includes(wanted)",
        arg=[node_id, wanted], timeout=WAIT_MS,
    )  # fmt: skip


def test_values_of_the_chosen_preset(tab: Editor, nodes: bool) -> None:
    """They change with the choice, without a run. A run with Auto shows the card. A reloaded workflow shows its own."""
    preset, to_json = fresh(tab, "Preset", "PresetToJson")
    wait_text(tab, preset, "All settings in one node.")
    tab.set_value(preset, "preset", "8 GB Turbo")
    wait_text(tab, preset, "paint_variant: turbo")
    saved = tab.js("() => app.graph.serialize()")
    assert [part["widgets_values"] for part in saved["nodes"] if part["type"] == PREFIX + "Preset"] == [["8 GB Turbo"]]
    tab.set_value(preset, "preset", "Auto")
    wait_text(tab, preset, "All settings in one node.")
    tab.js(
        "([one, other]) => app.graph.getNodeById(one).connect(0, app.graph.getNodeById(other), 0)", [preset, to_json]
    )
    tab.run()
    wait_text(tab, preset, "No graphics card: the preset with the least work.\n8 GB Fast\nvariant: mini-turbo")
    wait_text(tab, to_json, '"base": "8 GB Fast"')
    tab.shot(SHOTS / f"presets_{'vue' if nodes else 'classic'}.png")
    tab.load(saved)
    wait_text(tab, preset, "paint_variant: turbo")
    assert tab.errors == []


def press(tab: Editor, node_id: str, group: str, nodes: bool) -> None:
    """Clicks on a group's title."""
    if nodes:
        tab.page.get_by_role("button", name=re.compile(group, re.IGNORECASE)).first.click()
    else:
        tab.page.mouse.click(*tab.js(TITLE_AT, [node_id, group]))
    tab.page.wait_for_timeout(1000)


def visible(tab: Editor, node_id: str) -> list[str]:
    """The widgets that are not folded away."""
    found: list[str] = tab.js(VISIBLE, node_id)
    return found


def test_groups_fold_and_workflows_keep_their_values(tab: Editor, nodes: bool, info: dict[str, Any]) -> None:
    """The widgets stand in groups on the screen, and in the schema's order in a workflow."""
    spec = info[PREFIX + "PresetCustom"]["input"]
    declared = {**spec["required"], **spec["optional"]}
    assert len(declared) == 37
    in_group = {
        group: [name for name, rest in declared.items() if rest[1]["hy3d_group"] == group]
        for group in ("shape", "texture", "memory", "advanced")
    }
    (custom,) = fresh(tab, "PresetCustom")
    titles = [f"hy3d_title_{group}" for group in in_group]
    start = [titles[0], *in_group["shape"], titles[1], *in_group["texture"], *titles[2:]]
    assert visible(tab, custom) == start
    press(tab, custom, "memory", nodes)
    assert visible(tab, custom) == [*start[:-1], *in_group["memory"], titles[3]]
    press(tab, custom, "shape", nodes)
    assert visible(tab, custom) == [titles[0], *start[1 + len(in_group["shape"]) : -1], *in_group["memory"], titles[3]]
    tab.shot(SHOTS / f"groups_{'vue' if nodes else 'classic'}.png")
    changes = {"octree": 192, "vae_tile_px": 256, "prefetch": False, "merge": "matched"}
    for name, value in changes.items():
        tab.set_value(custom, name, value)
    wanted = {name: rest[1].get("default") for name, rest in declared.items()} | changes
    saved = tab.js("() => app.graph.serialize()")
    (node,) = saved["nodes"]
    assert node["widgets_values"] == list(wanted.values()), "by position, as older versions of the pack save them"
    tab.load(saved)
    assert tab.prompt()[custom]["inputs"] == wanted
    assert set(in_group["advanced"]) <= set(visible(tab, custom)), "a changed value is not hidden"
    old = copy.deepcopy(saved)
    old["nodes"][0]["widgets_values"] = node["widgets_values"][:23]
    old["nodes"][0].pop("widgets_values_named", None)
    tab.load(old)
    before = {name: wanted[name] for name in list(wanted)[:23]}
    later = {name: declared[name][1]["default"] for name in list(wanted)[23:]}
    assert tab.prompt()[custom]["inputs"] == {**before, **later}, "a workflow from before these values came"
    assert tab.errors == []


SEARCHES = {
    "en": {
        "Hunyuan3D Low VRAM": "Preset", "image to mesh": "Generate Shape", "picture to 3D": "Generate Shape",
        "훈위안3D 저사양": "Generate Shape", "remove background": "Remove Background (Hunyuan3D)",
    },
    "ko": {
        "Hunyuan3D Low VRAM": "프리셋", "훈위안3D 저사양": "형상 생성", "사진을 3D로": "형상 생성",
        "이미지를 메시로": "형상 생성", "배경 제거": "배경 제거(Hunyuan3D)",
    },
}  # fmt: skip
"""What a person types into the search, and a title that it must find."""
TITLES = "() => Object.values(LiteGraph.registered_node_types).map((kind) => [kind.type ?? '', kind.title ?? ''])"


def search_box(tab: Editor) -> Any:
    """The input of the search, opened by its command: a busy machine takes a double click for two clicks."""
    tab.js("() => app.extensionManager.command.execute('Workspace.SearchBox.Toggle')")
    box = tab.page.locator("[role=dialog] input").first
    box.wait_for(timeout=WAIT_MS)
    return box


WORDS = """
(prefix) => {
  const [preset, custom] = ["Preset", "PresetCustom"].map((kind) => LiteGraph.createNode(prefix + kind));
  [preset, custom].forEach((node) => app.graph.add(node));
  preset.onExecuted({text: ["CPU: 1 GiB\\nNo graphics card: the preset with the least work.\\n8 GB Fast"]});
  const titles = custom.widgets.filter(({name}) => name.startsWith("hy3d_title_")).map(({label}) => label);
  return [preset.widgets.find(({name}) => name === "lowvram_text").value, titles.join(" ")];
}
"""
SHOWN = {
    "en": ["CPU: 1 GiB\nNo graphics card: the preset with the least work.\n8 GB Fast",
           "▾ Shape ▾ Texture ▸ Memory ▸ Advanced"],
    "ko": ["CPU: 1 GiB\n그래픽 카드 없음: 계산이 가장 적은 프리셋입니다.\n8 GB Fast",
           "▾ 형상 ▾ 텍스처 ▸ 메모리 ▸ 고급"],
}  # fmt: skip
"""The note of Auto, and the titles of the groups."""


@pytest.mark.parametrize("language", list(SEARCHES))
def test_the_search_finds_our_nodes(tab: Editor, server: Server, info: dict[str, Any], language: str) -> None:
    """With the real search box, in the user's language. No node of ours has the title of one of ComfyUI's own."""
    server.post("/settings/Comfy.Locale", language)
    translated = Editor(tab.page.context.browser.new_page(viewport={"width": 1400, "height": 900}))
    try:
        translated.open(server.url)
        translated.js("() => { app.graph.clear(); app.canvas.ds.reset(); }")
        for words, title in SEARCHES[language].items():
            page, box = translated.page, search_box(translated)
            box.fill(words)
            found = page.locator("[role=dialog] [role=option]").filter(has=page.get_by_text(title, exact=True))
            found.first.wait_for(timeout=WAIT_MS)
            page.keyboard.press("Escape")
            box.wait_for(state="hidden", timeout=WAIT_MS)
        assert translated.js(WORDS, PREFIX) == SHOWN[language]
        titles = translated.js(TITLES)
        ours = {title for kind, title in titles if kind.startswith(PREFIX)}
        assert len(ours) == len([kind for kind in info if kind.startswith(PREFIX)])
        assert not ours & {title for kind, title in titles if not kind.startswith(PREFIX)}
        assert translated.errors == []
    finally:
        translated.page.close()
        server.post("/settings/Comfy.Locale", "en")
