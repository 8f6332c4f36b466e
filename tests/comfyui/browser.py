"""Drives ComfyUI's real front end in headless Chromium, as a person does."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from comfy_server import CHROMIUM, RUN_S, Server
from graph_file import PREFIX, Graph
from graphs import TINY
from playwright.sync_api import Page, sync_playwright

FLAGS = [
    "--no-sandbox", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--use-gl=angle", "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist",
]  # fmt: skip
SETTINGS = {"Comfy.TutorialCompleted": True, "Comfy.Minimap.Visible": False, "Comfy.Graph.CanvasInfo": False}
READY = "window.app?.graph && window.app.canvas && Object.keys(LiteGraph.registered_node_types).length > 100"

BUILD = """
({nodes, links, groups}) => {
  // Ids that no earlier graph had: the front end remembers pictures and values by id.
  window.hy3dTestIds = (window.hy3dTestIds ?? 0) + 1000;
  app.graph.state.lastNodeId = window.hy3dTestIds;
  const made = {};
  for (const {key, type, title, pos, size, values} of nodes) {
    const node = LiteGraph.createNode(type);
    if (!node) throw new Error(`no node ${type}`);
    app.graph.add(node);
    node.pos = pos;
    if (title) node.title = title;
    if (size) node.setSize(size);
    for (const [name, value] of Object.entries(values)) {
      const widget = node.widgets.find((widget) => widget.name === name);
      if (!widget) throw new Error(`no widget ${name} on ${type}`);
      widget.value = value;
      widget.callback?.(value);
    }
    made[key] = node;
  }
  for (const [from, output, to, input] of links) {
    const slot = made[from].outputs.findIndex((known) => [known.label, known.name].includes(output));
    const target = made[to].inputs.findIndex((known) => known.name === input);
    if (slot < 0 || target < 0) throw new Error(`no link ${from}.${output} -> ${to}.${input}`);
    made[from].connect(slot, made[to], target);
  }
  for (const {title, color, bounds} of groups) {
    const group = new LiteGraph.LGraphGroup(title);
    group.color = color;
    app.graph.add(group);
    group.pos = bounds.slice(0, 2);
    group.size = bounds.slice(2);
  }
  return Object.fromEntries(Object.entries(made).map(([key, node]) => [key, String(node.id)]));
}
"""

OVERLAPS = """
() => {
  const boxes = app.graph.nodes.map((node) => {
    const {x, y, width, height} = document.querySelector(`[data-node-id="${node.id}"]`).getBoundingClientRect();
    return {name: node.title, left: x, top: y, right: x + width, bottom: y + height};
  });
  const {scale, offset} = app.canvas.ds;
  const corner = app.canvas.canvas.getBoundingClientRect();
  const groups = app.graph.groups.map(({title, pos, size}) => {
    const [left, top] = [0, 1].map((axis) => (pos[axis] + offset[axis]) * scale + [corner.x, corner.y][axis]);
    return {name: title, left, top, right: left + size[0] * scale, bottom: top + size[1] * scale};
  });
  const meet = (a, b) => a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom;
  const within = (a, b) => a.left >= b.left && a.right <= b.right && a.top >= b.top && a.bottom <= b.bottom;
  const pairs = boxes.flatMap((one, index) => boxes.slice(index + 1).filter((other) => meet(one, other))
    .map((other) => `${one.name} on ${other.name}`));
  const edges = boxes.flatMap((box) => groups.filter((group) => meet(box, group) && !within(box, group))
    .map((group) => `${box.name} over the edge of ${group.name}`));
  return [...pairs, ...edges];
}
"""

SIZES = """
() => app.canvas.graph.nodes.map((node) => [
  Number(node.id), [...node.size], node.outputs.map((_, index) => [...node.getOutputPos(index)]),
  node.inputs.map((_, index) => [...node.getInputPos(index)]),
])
"""

RUN = """
() => new Promise((resolve) => {
  const kinds = ["execution_success", "execution_error", "execution_interrupted"];
  const seen = [];
  const executed = ({detail}) => seen.push(String(detail.node));
  app.api.addEventListener("executed", executed);
  const end = ({type, detail}) => {
    kinds.forEach((kind) => app.api.removeEventListener(kind, end));
    app.api.removeEventListener("executed", executed);
    resolve({ending: type, message: detail.exception_message ?? "", executed: seen});
  };
  kinds.forEach((kind) => app.api.addEventListener(kind, end));
  app.queuePrompt(0).then((sent) => {
    if (sent === false) end({type: "refused", detail: {exception_message: JSON.stringify(app.lastNodeErrors)}});
  });
})
"""

SWAP_PRESET = """
(kind) => {
  const old = app.graph.nodes.find((node) => node.type.startsWith("Hy3dLowVram_Preset"));
  const targets = old.outputs[0].links.map((id) => app.graph.links.get?.(id) ?? app.graph.links[id])
    .map((link) => [link.target_id, link.target_slot]);
  const made = LiteGraph.createNode(kind);
  app.graph.add(made);
  made.pos = [...old.pos];
  for (const [id, slot] of targets) made.connect(0, app.graph.getNodeById(id), slot);
  app.graph.remove(old);
}
"""

FIT = """
() => {
  const items = [...app.graph.nodes, ...(app.graph.groups ?? [])];
  const boxes = items.map((item) => item.boundingRect ?? item._bounding);
  const left = Math.min(...boxes.map((box) => box[0])), top = Math.min(...boxes.map((box) => box[1]));
  const right = Math.max(...boxes.map((box) => box[0] + box[2]));
  const bottom = Math.max(...boxes.map((box) => box[1] + box[3]));
  const {clientWidth, clientHeight} = app.canvas.canvas;
  const [side, bar, rim] = [70, 90, 15]; // what lies over the canvas, on the left and on top
  const room = [clientWidth - side - rim, clientHeight - bar - rim];
  const scale = Math.min(room[0] / (right - left), room[1] / (bottom - top), 1);
  app.canvas.ds.scale = scale;
  app.canvas.ds.offset[0] = (side + (room[0] - (right - left) * scale) / 2) / scale - left;
  app.canvas.ds.offset[1] = (bar + (room[1] - (bottom - top) * scale) / 2) / scale - top;
  app.canvas.setDirty(true, true);
}
"""


BUTTON = """
(kind) => {
  const node = app.graph.nodes.find((known) => known.type === kind);
  const button = node.widgets.find((widget) => widget.type === "button");
  const {scale, offset} = app.canvas.ds;
  const corner = app.canvas.canvas.getBoundingClientRect();
  const [x, y] = [node.pos[0] + node.size[0] / 2, node.pos[1] + button.last_y + 10];
  return [(x + offset[0]) * scale + corner.x, (y + offset[1]) * scale + corner.y];
}
"""


class Editor:
    """One browser tab with the graph editor."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.errors: list[str] = []
        self.warnings: list[str] = []
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", lambda said: self.warnings.append(said.text) if said.type in {"warning", "error"} else None)

    def open(self, url: str) -> None:
        """Opens the front end."""
        self.page.goto(url)
        self.wait()

    def wait(self) -> None:
        """Waits until the front end has its nodes."""
        self.page.wait_for_function(READY, timeout=120_000)
        self.page.wait_for_timeout(3000)

    def js(self, code: str, value: Any = None) -> Any:
        """Runs JavaScript and returns its value."""
        return self.page.evaluate(code, value)

    def load(self, graph: dict[str, Any]) -> None:
        """Opens a workflow, as dropping its file on the canvas does."""
        self.js("async (graph) => { await app.loadGraphData(graph); }", graph)
        self.page.wait_for_timeout(1500)

    def show_templates(self, names: Sequence[str]) -> None:
        """Opens the template browser at this pack's list, and waits until each workflow's card has its picture.

        Ours are 480 px wide. ComfyUI's own, for a workflow without a picture, has 224 px.
        """
        self.js("() => app.extensionManager.command.execute('Comfy.BrowseTemplates')")
        self.page.get_by_text("hunyuan3d-lowvram", exact=True).click()
        for name in names:
            self.page.get_by_test_id(f"template-workflow-{name}").scroll_into_view_if_needed(timeout=20_000)
            self.page.wait_for_function(
                "(name) => [...document.querySelectorAll(`[data-testid=template-workflow-${name}] img`)]"
                ".some(({complete, naturalWidth}) => complete && naturalWidth === 480)",
                arg=name, timeout=20_000,
            )  # fmt: skip
        self.page.get_by_test_id(f"template-workflow-{names[0]}").scroll_into_view_if_needed()
        self.page.wait_for_timeout(1000)

    def sizes(self) -> list[Any]:
        """Id, size, and the places of outputs and inputs of each node of the graph that is shown."""
        found: list[Any] = self.js(SIZES)
        return found

    def open_subgraph(self, kind: str) -> None:
        """Shows the inside of a subgraph, as its button does."""
        self.js(
            "(kind) => { const node = app.graph.nodes.find((known) => known.type === kind);"
            " app.canvas.openSubgraph(node.subgraph, node); }",
            kind,
        )
        self.page.wait_for_timeout(1000)

    def missing(self) -> list[str]:
        """Node types in the graph that this ComfyUI does not know."""
        found: list[str] = self.js(
            "() => { const all = (graph) => graph.nodes.flatMap((node) => node.subgraph ? all(node.subgraph) : [node]);"
            " return all(app.graph).map(({type}) => type).filter((type) => !LiteGraph.registered_node_types[type]); }"
        )
        return found

    def build(self, nodes: list[dict[str, Any]], links: list[Any], groups: list[Any]) -> dict[str, str]:
        """Empties the editor and builds a graph, node by node. Returns the nodes' ids by key."""
        self.js("() => app.graph.clear()")
        ids: dict[str, str] = self.js(BUILD, {"nodes": nodes, "links": links, "groups": groups})
        self.page.wait_for_timeout(1500)
        return ids

    def build_graph(self, graph: Graph) -> dict[str, str]:
        """Builds a graph without subgraphs, wire by wire. Returns the nodes' ids by key."""
        nodes = [
            {"key": key, "type": part.kind, "title": part.title, "pos": part.pos,
             "size": part.size if part.size[1] else None, "values": part.values}
            for key, part in graph.parts.items()
        ]  # fmt: skip
        groups = [{**group, "bounds": group["bounding"]} for group in graph.groups]
        return self.build(nodes, [[*wire.source, *wire.target] for wire in graph.wires], groups)

    def run(self) -> dict[str, Any]:
        """Presses Run and waits for the end. Returns how it ended, a message, and the ids of nodes that reported."""
        self.page.set_default_timeout(RUN_S * 1000)
        result: dict[str, Any] = self.js(RUN)
        assert result["ending"] == "execution_success", result
        return result

    def prompt(self) -> dict[str, Any]:
        """The graph as the front end sends it to the server."""
        sent: dict[str, Any] = self.js("async () => (await app.graphToPrompt()).output")
        return sent

    def set_value(self, node_id: str, name: str, value: Any) -> None:
        """Sets the value of a node's widget."""
        self.js(
            "([id, name, value]) => { const node = app.graph.getNodeById(id);"
            " const widget = node.widgets.find((known) => known.name === name);"
            " widget.value = value; widget.callback?.(value); }",
            [node_id, name, value],
        )

    def node_id(self, kind: str) -> str:
        """The id of the graph's only node of a kind."""
        found: str = self.js("(kind) => String(app.graph.nodes.find((node) => node.type === kind).id)", kind)
        return found

    def button(self, kind: str) -> tuple[float, float]:
        """Where the button of the graph's only node of a kind is in the window, on the classic canvas."""
        x, y = self.js(BUTTON, kind)
        return x, y

    def swap_preset(self, kind: str) -> None:
        """Replaces the preset node by another one, and links it to the same nodes."""
        self.js(SWAP_PRESET, PREFIX + kind)

    def make_tiny(self) -> None:
        """Replaces the preset by Preset Custom with tiny values."""
        self.swap_preset("PresetCustom")
        custom = self.node_id(PREFIX + "PresetCustom")
        for name, value in TINY.items():
            self.set_value(custom, name, value)

    def texts(self) -> dict[str, str]:
        """The badge and the text that our nodes show, by type."""
        shown: dict[str, str] = self.js(
            "() => Object.fromEntries(app.graph.nodes.map((node) => [node.type, "
            "[node.lowvramBadge?.text, node.widgets?.find((known) => known.name === 'lowvram_text')?.value]"
            ".filter(Boolean).join('\\n')]))"
        )
        return shown

    def overlaps(self) -> list[str]:
        """Finds nodes that lie on other nodes or over a group's edge, as Nodes 2.0 draws them."""
        found: list[str] = self.js(OVERLAPS)
        for _ in range(10):  # until the nodes have their sizes
            if not found:
                break
            self.page.wait_for_timeout(1000)
            found = self.js(OVERLAPS)
        return found

    def show_all(self) -> None:
        """Zooms so that the whole graph is visible."""
        self.js(FIT)
        self.page.wait_for_timeout(1500)

    def shot(self, path: Path) -> None:
        """Writes a screenshot of the window; a .jpg has quality 80."""
        path.parent.mkdir(parents=True, exist_ok=True)
        jpg = path.suffix == ".jpg"
        self.page.screenshot(path=path, type="jpeg" if jpg else "png", quality=80 if jpg else None)


@contextmanager
def editor(server: Server, width: int = 1800, height: int = 950) -> Iterator[Editor]:
    """Opens a server's front end without its greeting."""
    for name, value in SETTINGS.items():
        server.post(f"/settings/{name}", value)
    with sync_playwright() as play:
        chromium = play.chromium.launch(executable_path=CHROMIUM, headless=True, args=FLAGS)
        page = chromium.new_page(viewport={"width": width, "height": height})
        opened = Editor(page)
        opened.open(server.url)
        try:
            yield opened
        finally:
            chromium.close()
