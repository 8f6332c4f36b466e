"""Writes everything that is made of the nodes' schemas, the presets and their texts.

    make texts                                      writes what is stale
    .venv/bin/python texts/make_texts.py --check    lists what is stale, and fails if anything is

Written are the golden of the schemas (tests/nodes/schemas.json), locales/en and locales/ko, the help pages in web/docs
down to their hand-written end, the blocks of the READMEs and docs/ (see readme_tables.py), and the translated messages
in web/messages. Written by hand are the schemas in nodes/, lowvram_core/presets.py, lowvram_core/presets.toml,
locales/ko.toml, locales/ko_messages.toml, locales/ko_progress.toml and locales/*/settings.json.
"""

from __future__ import annotations

import argparse
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
for folder in (ROOT, ROOT / "texts", ROOT / "tests", ROOT / "tests" / "nodes"):
    if str(folder) not in sys.path:
        sys.path.append(str(folder))

import message_texts  # noqa: E402  (needs the path above)
import node_texts  # noqa: E402  (needs the path above)
import progress_texts  # noqa: E402
import readme_tables  # noqa: E402


def wanted(nodes: list[Any]) -> dict[Path, str]:
    """Every generated file, and what belongs into it."""
    return {**node_texts.files(nodes), **readme_tables.files(), **message_texts.files(), **progress_texts.files()}


def stale(nodes: list[Any]) -> dict[Path, str]:
    """The generated files that do not hold what belongs into them."""
    return {
        path: text
        for path, text in wanted(nodes).items()
        if not path.exists() or path.read_text(encoding="utf-8") != text
    }


def pack_nodes() -> list[Any]:
    """The nodes of the pack, imported as ComfyUI imports it."""
    return list(import_module("comfy_pack").Pack().nodes)


def main() -> int:
    """Writes the stale files, or lists them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if a file is stale")
    options = parser.parse_args()
    found = stale(pack_nodes())
    for path, text in found.items():
        sys.stdout.write(f"{'stale' if options.check else 'written'}: {path.relative_to(ROOT)}\n")
        if not options.check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    if options.check and found:
        sys.stdout.write("Run `make texts`.\n")
    if node_texts.GOLDEN in found:
        sys.stdout.write(f"{node_texts.CHANGED}\n")
    return int(options.check and bool(found))


if __name__ == "__main__":
    sys.exit(main())
