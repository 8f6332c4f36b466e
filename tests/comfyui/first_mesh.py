"""A new user's way, with times: `python first_mesh.py <ComfyUI's repository> <an empty folder>`.

It clones ComfyUI, makes a Python environment with ComfyUI's packages and runs README's commands of "By hand", word for
word. Then it starts ComfyUI with the demo checkpoints, because the real ones are 11 GB, and does README's three clicks
in Chromium with the mouse. It prints the seconds of each step, and writes first_mesh.jpg to the folder.

It runs on Linux or macOS, in a Python that has what the tests of this folder need, with Chromium. pip must find the CPU
build of torch. Packages are downloaded anew: pip's cache is not used. ComfyUI computes on one thread (comfy_server.py).
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path

from browser import Editor, editor
from comfy_server import CHROMIUM, DEMO, ROOT, running
from graph_file import PREFIX
from results import textured

TORCH = ["torch==2.13.0", "--no-deps torchvision==0.28.0"]
"""torch, and a torchvision whose compiled part the tests stand in for (see launch.py). A user has ComfyUI's own."""
ENVIRONMENT = {**os.environ, "PIP_NO_CACHE_DIR": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_QUIET": "2"}


def say(line: str) -> None:
    """Prints a line at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


class Watch:
    """Prints what took how long."""

    def __init__(self) -> None:
        self._start = self._last = time.monotonic()

    def done(self, step: str) -> None:
        """Prints the step that ended now, its seconds, and the seconds since the start."""
        now = time.monotonic()
        say(f"{now - self._last:7.1f} s  {now - self._start:7.1f} s in all  {step}")
        self._last = now


def commands(address: str) -> list[str]:
    """README's commands for an install by hand."""
    part = (ROOT / "README.md").read_text().partition("### By hand")[2]
    (block,) = re.findall(r"```\n(.*?)```", part.partition("###")[0], re.DOTALL)
    lines: list[str] = block.replace("<address>", address).splitlines()
    assert len(lines) == 4, lines
    return lines


def shell(command: str, folder: Path, python: Path) -> None:
    """Runs a command in a folder, in a terminal where `python` is the one of the environment."""
    path = f"{python.parent}{os.pathsep}{os.environ['PATH']}"
    say(f"    {command}")
    subprocess.run(command, shell=True, cwd=folder, check=True, env={**ENVIRONMENT, "PATH": path})


def install(source: str, folder: Path, watch: Watch) -> tuple[Path, Path]:
    """Installs ComfyUI and this pack. Returns ComfyUI's folder and its Python."""
    comfyui, python = folder / "ComfyUI", folder / "venv" / "bin" / "python"
    source = str(Path(source).resolve()) if Path(source).exists() else source
    # Git leaves large files out where the repository is a copy without them. ComfyUI's own code is never among them.
    subprocess.run(["git", "clone", "-q", "--no-checkout", source, comfyui], check=True)
    subprocess.run(["git", "checkout", "-q", "--force", "HEAD"], cwd=comfyui)
    if not (comfyui / "main.py").is_file():
        sys.exit(f"{source} has no main.py; wanted ComfyUI's repository.")
    watch.done("ComfyUI's files")
    subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
    needed = (comfyui / "requirements.txt").read_text().splitlines()
    listed = folder / "comfyui.txt"
    listed.write_text("\n".join(line for line in needed if not re.match(r"torch(vision|audio)?\b", line)))
    for what in (TORCH[0], f"-r {listed.name}", TORCH[1]):
        shell(f"python -m pip install {what}", folder, python)
    watch.done("a Python environment with ComfyUI's packages")
    for command in commands(shlex.quote(str(ROOT))):
        shell(command, comfyui, python)
    watch.done("this pack, by README's commands")
    return comfyui, python


def three_clicks(tab: Editor, picture: Path, watch: Watch) -> None:
    """Does what README's "First mesh" says."""
    page = tab.page
    page.get_by_role("button", name="Templates").first.click()
    page.get_by_text("hunyuan3d-lowvram", exact=True).click()
    page.get_by_test_id("template-workflow-picture_to_mesh").click()
    page.wait_for_function(f"app.graph.nodes.some((node) => node.type === '{PREFIX}Preset')")
    page.wait_for_timeout(1500)
    watch.done("1. the template")
    tab.show_all()
    with page.expect_file_chooser() as chooser:
        page.mouse.click(*tab.button("LoadImage"))
    chooser.value.set_files(picture)
    page.wait_for_timeout(1500)
    watch.done("2. the picture")
    page.get_by_role("button", name="Run", exact=True).first.click()


def main() -> None:
    """Goes the whole way."""
    if not CHROMIUM:
        sys.exit("Chromium or Playwright is missing. CHROMIUM may name the browser.")
    source, folder = sys.argv[1], Path(sys.argv[2]).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    watch = Watch()
    comfyui, python = install(source, folder, watch)
    os.environ["COMFYUI_PYTHON"] = str(python)
    pack = comfyui / "custom_nodes" / "hunyuan3d-lowvram"
    with running(folder / "base", comfyui, pack) as server:
        watch.done("ComfyUI has started")
        with editor(server, 1600, 800) as tab:
            watch.done("its window is open")
            three_clicks(tab, DEMO / "pictures" / "ring.jpg", watch)
            file = server.wait_for_file("3d/*.glb")
            watch.done("3. Run: the mesh is there")
            tab.page.wait_for_timeout(6000)
            tab.show_all()
            tab.shot(folder / "first_mesh.jpg")
            assert not tab.errors, tab.errors
            mesh = textured(file)
            say(next(line for line in server.log().splitlines() if "textured mesh in" in line))
            say(f"{file.name}: {len(mesh.faces):,} faces")
            start = time.monotonic()
            tab.run()
            say(f"Run again, nothing changed: {time.monotonic() - start:.1f} s")


if __name__ == "__main__":
    main()
