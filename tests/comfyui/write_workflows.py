"""Writes the bundled workflows and blueprints: `python write_workflows.py <ComfyUI's folder>`.

A ComfyUI server is started for the description of its nodes and ours. Use this after a change of the nodes' inputs, of
bundled.py, neighbours.py or locales/workflows.toml. The pack ships workflows/ and subgraphs/.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from bundled import BLUEPRINTS
from comfy_server import ROOT, running
from graph_file import Json, Writer, text_of
from neighbours import WORKFLOWS


def wanted(info: Json) -> dict[Path, str]:
    """Every file, and what belongs into it."""
    writer = Writer(info)
    found = {ROOT / "workflows" / f"{name}.json": text_of(writer.workflow(make())) for name, make in WORKFLOWS.items()}
    for make in BLUEPRINTS.values():
        graph = make()
        found[ROOT / "subgraphs" / f"{graph.name}.json"] = text_of(writer.blueprint(graph))
    return found


def main() -> None:
    """Writes the files that are stale."""
    with tempfile.TemporaryDirectory() as folder, running(Path(folder) / "comfy", Path(sys.argv[1])) as server:
        info = server.get("/object_info")
    for path, text in wanted(info).items():
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
            sys.stdout.write(f"written: {path.relative_to(ROOT)}\n")


if __name__ == "__main__":
    main()
