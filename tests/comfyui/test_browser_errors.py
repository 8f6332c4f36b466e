"""A node that stops, in the real front end: the toast and the text on the node, in both kinds of nodes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

pytest.importorskip("playwright", reason="playwright is not installed")
from browser import RUN, Editor, editor
from comfy_server import CHROMIUM, ROOT, Server

pytestmark = [
    pytest.mark.skipif(not CHROMIUM, reason="no chromium on the path (CHROMIUM may name it)"),
    # Playwright leaves resources to the garbage collector when a test fails.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]
SHOTS = ROOT / "output" / "screenshots"
PREFIX = "Hy3dLowVram_"
TITLES = {"en": "Load Pictures from Folder", "ko": "폴더에서 사진 불러오기"}
SUMMARY = {"en": "{} stopped", "ko": "{} 노드가 멈췄습니다"}
TOLD = {
    "en": ("picture: ", " is not there; wanted a picture file or a folder. Check the path."),
    "ko": ("사진: ", "이(가) 없습니다. 사진 파일이나 폴더가 필요합니다. 경로를 확인하세요."),
}
MISSING = {
    "en": ("models: shape/mini is ", "ComfyUI's report of the error lists more."),
    "ko": ("모델: shape/mini", "자세한 목록은 ComfyUI의 오류 보고에 있습니다."),
}
ON_NODE = """
(type) => {
  const node = app.graph.nodes.find((known) => known.type === "Hy3dLowVram_" + type);
  const text = node.widgets.find((widget) => widget.name === "lowvram_error")?.value;
  return {text, height: node.size[1], title: node.title};
}
"""
COVERED = """
() => {
  const [report, toast] = ['[data-testid="error-overlay"]', ".p-toast-message"]
    .map((part) => document.querySelector(part)?.getBoundingClientRect());
  return report && toast && report.bottom > toast.top;
}
"""


@pytest.fixture(scope="module")
def tab(server: Server) -> Iterator[Editor]:
    """One tab for all tests."""
    with editor(server, 1500, 800) as opened:
        yield opened


@contextmanager
def shown_as(tab: Editor, server: Server, language: str, *, vue: bool) -> Iterator[None]:
    """Within it the front end speaks the language, in classic nodes or in Nodes 2.0."""
    server.post("/settings/Comfy.Locale", language)
    server.post("/settings/Comfy.VueNodes.Enabled", vue)
    try:
        tab.open(server.url)
        yield
    finally:
        server.post("/settings/Comfy.Locale", "en")
        server.post("/settings/Comfy.VueNodes.Enabled", False)


def stop(tab: Editor) -> None:
    """Runs the graph, which fails, and waits for the toast."""
    assert tab.js(RUN)["ending"] == "execution_error"
    tab.page.wait_for_selector(".p-toast-detail", timeout=30_000)
    tab.page.wait_for_timeout(1500)


def part(key: str, kind: str, x: int, **values: Any) -> dict[str, Any]:
    """A node to build."""
    return {"key": key, "type": kind, "pos": [x, 150], "values": values}


def toasts(tab: Editor) -> list[list[str]]:
    """The summary and the detail of each toast."""
    found: list[list[str]] = tab.js(
        "() => [...document.querySelectorAll('.p-toast-message')].map((toast) =>"
        " ['summary', 'detail'].map((part) => toast.querySelector('.p-toast-' + part)?.textContent ?? ''))"
    )
    return found


def texts(tab: Editor) -> list[str]:
    """What stands in the text areas of the page."""
    found: list[str] = tab.js("() => [...document.querySelectorAll('textarea')].map((area) => area.value)")
    return found


@pytest.mark.parametrize("vue", [False, True], ids=["classic", "vue"])
@pytest.mark.parametrize("language", ["en", "ko"])
def test_a_stopped_node_says_why(tab: Editor, server: Server, language: str, vue: bool) -> None:
    """The text leaves the node when it runs again. It is neither saved nor sent."""
    with shown_as(tab, server, language, vue=vue):
        ids = tab.build(
            [part("load", PREFIX + "LoadPictures", 150, folder="nowhere"), part("see", "PreviewImage", 700)],
            [["load", "image", "see", "images"]], [],
        )  # fmt: skip
        size = tab.js(ON_NODE, "LoadPictures")["height"]
        stop(tab)
        tab.shot(SHOTS / f"error_{language}_{'vue' if vue else 'classic'}.png")
        node = tab.js(ON_NODE, "LoadPictures")
        first, last = TOLD[language]
        assert node["text"].startswith(first) and node["text"].endswith(last), node
        assert node["height"] > size and node["text"] in texts(tab)
        assert node["title"] == TITLES[language]
        assert toasts(tab) == [[SUMMARY[language].format(node["title"]), node["text"]]]
        assert not tab.js(COVERED)
        assert "nowhere" in node["text"] and "lowvram_error" not in str([tab.prompt(), saved(tab)])
        tab.set_value(ids["load"], "folder", "")
        tab.run()
        tab.page.wait_for_selector(".p-toast-detail", state="detached", timeout=30_000)
        assert tab.js(ON_NODE, "LoadPictures")["text"] is None and node["text"] not in texts(tab)
        assert vue or tab.js(ON_NODE, "LoadPictures")["height"] == size  # Vue nodes set their heights themselves
        assert tab.errors == []


def saved(tab: Editor) -> dict[str, Any]:
    """The workflow as the front end saves it."""
    graph: dict[str, Any] = tab.js("() => app.graph.serialize()")
    return graph


def test_a_node_inside_a_subgraph_says_why(tab: Editor, server: Server) -> None:
    """ComfyUI names it by the ids on the way to it. The toast has its title, and the text stands on the inner node."""
    with shown_as(tab, server, "en", vue=False):
        ids = tab.build(
            [part("load", PREFIX + "LoadPictures", 150, folder="nowhere"), part("see", "PreviewImage", 700)],
            [["load", "image", "see", "images"]], [],
        )  # fmt: skip
        tab.js("(id) => { app.graph.convertToSubgraph(new Set([app.graph.getNodeById(id)])); }", ids["load"])
        stop(tab)
        [[summary, detail]] = toasts(tab)
        assert summary == "Load Pictures from Folder stopped"
        assert detail == tab.js(
            "() => app.graph.nodes.find((node) => node.subgraph).subgraph.nodes[0]"
            ".widgets.find((widget) => widget.name === 'lowvram_error').value"
        )
        assert tab.errors == []


@pytest.mark.parametrize("language", ["en", "ko"])
def test_a_missing_model_is_one_paragraph(tab: Editor, server: Server, language: str) -> None:
    """What to do is shown. The files and folders stand in ComfyUI's own report."""
    with shown_as(tab, server, language, vue=True):
        shape = part("shape", PREFIX + "GenerateShape", 500, variant="mini")
        tab.build(
            [part("image", "LoadImage", 90, image="ring.jpg"), shape,
             {**part("preset", PREFIX + "Preset8GBBalanced", 90), "pos": [90, 540]}, part("save", "SaveGLB", 980)],
            [["image", "IMAGE", "shape", "image"], ["preset", "preset", "shape", "preset"],
             ["shape", "mesh", "save", "mesh"]], [],
        )  # fmt: skip
        stop(tab)
        tab.shot(SHOTS / f"error_model_{language}.png")
        [[_, detail]] = toasts(tab)
        first, last = MISSING[language]
        assert detail.startswith(first) and detail.endswith(last)
        assert "\n" not in detail and tab.js(ON_NODE, "GenerateShape")["text"] == detail
        assert tab.errors == []
