"""xatlas in a child process: the same bytes, and nothing is left behind, however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest
from hosts import RecordingHost
from meshes import blob, cube, small_preset, torus

from lowvram_core.errors import BadInput, Cancelled
from lowvram_core.geometry import xatlas_child, xatlas_script
from lowvram_core.geometry.unwrappers import _arrays, unwrap_xatlas
from lowvram_core.geometry.xatlas_child import ChildEnded, NoChild, parametrize_in_child
from lowvram_core.stages.unwrap import unwrap

ROOT = Path(__file__).resolve().parents[2]
SLOW = torus(120, 60, 0.1)
"""xatlas takes several seconds for it."""


def children(pid: int | None = None) -> list[psutil.Process]:
    """The processes of our script below a process, also those of dead parents."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        if "xatlas_script.py" in " ".join(process.info["cmdline"] or []):
            above = [parent.pid for parent in process.parents()]
            if pid is None or pid in above:
                found.append(process)
    return found


def eventually(happened: Callable[[], bool], within_s: float) -> bool:
    deadline = time.monotonic() + within_s
    while not happened():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def zombies() -> int:
    return sum(child.status() == psutil.STATUS_ZOMBIE for child in psutil.Process().children(recursive=True))


@pytest.fixture(autouse=True)
def nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No child, no zombie, no temporary file after a test."""
    (tmp_path / "temporary").mkdir()
    for name in ("TMPDIR", "TEMP", "TMP"):
        monkeypatch.setenv(name, str(tmp_path / "temporary"))
    monkeypatch.setattr(tempfile, "tempdir", None)
    yield  # type: ignore[misc]
    assert eventually(lambda: not children(os.getpid()), 5) and zombies() == 0
    assert not list((tmp_path / "temporary").iterdir())
    assert not [thread for thread in threading.enumerate() if thread.name == "xatlas"]


@pytest.mark.parametrize("page_px", [64, 512, 2048])
def test_a_child_gives_the_same_bytes(page_px: int) -> None:
    """As this process, and in all but the UVs as xatlas by default, which is what upstream does."""
    import xatlas

    arrays = _arrays(blob(3))
    for padding in (0, 5):
        child = parametrize_in_child(*arrays, page_px, padding)
        here = xatlas_script.parametrize(*arrays, page_px, padding)
        default = xatlas.parametrize(*arrays)
        for one, other in zip(child, here, strict=True):
            assert one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()
        for one, other in zip(child[:2], default[:2], strict=True):
            assert one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()
        assert child[2].min() >= 0 and child[2].max() <= 1


def test_other_threads_run_meanwhile() -> None:
    """Ours and xatlas' own time do not add up: this thread counts on while xatlas works."""
    reports: list[tuple[int, int]] = []
    result: list[object] = []
    thread = threading.Thread(
        target=lambda: result.append(parametrize_in_child(*_arrays(SLOW), 512, 5, _keep(reports)))
    )
    start, longest, last = time.monotonic(), 0.0, time.monotonic()
    thread.start()
    while thread.is_alive():
        time.sleep(0.01)
        longest, last = max(longest, time.monotonic() - last), time.monotonic()
    assert result and time.monotonic() - start > 1
    assert longest < 1
    done = [one for one, _ in reports]
    assert len(done) > 5 and done == sorted(done) and done[0] >= 0 and done[-1] <= 100 and len(set(done)) > 3


def _keep(reports: list[tuple[int, int]]) -> Callable[[int, int], None]:
    return lambda done, total: reports.append((done, total))


@pytest.mark.parametrize("after", [1, 12])
def test_cancel_ends_the_child_at_once(after: int) -> None:
    host = RecordingHost(cancel_after=after)
    asked: list[float] = []
    report = host.progress

    def progress(done: int, total: int, preview: object = None) -> None:
        asked.append(time.monotonic())
        report(done, total)

    host.progress = progress  # type: ignore[method-assign]
    with pytest.raises(Cancelled):
        unwrap(SLOW, small_preset(unwrapper="xatlas"), host)
    assert time.monotonic() - asked[-1] < 1
    assert host.finished == [] and not children(os.getpid())


@pytest.mark.skipif(os.name == "nt", reason="SIGKILL is of POSIX")
def test_a_killed_parent_takes_the_child_with_it() -> None:
    code = (
        "import sys; sys.path[:0] = sys.argv[1:3]\n"
        "from meshes import torus\n"
        "from lowvram_core.geometry.unwrappers import unwrap_xatlas\n"
        "unwrap_xatlas(torus(120, 60, 0.1))\n"
    )
    command = [sys.executable, "-c", code, str(Path(__file__).parent), str(ROOT)]
    with subprocess.Popen(command) as parent:
        assert eventually(lambda: len(children(parent.pid)) == 2, 60), "a watcher and a worker"
        below = children(parent.pid)
        time.sleep(0.5)
        assert all(process.is_running() for process in below)
        parent.send_signal(signal.SIGKILL)
    assert eventually(lambda: not any(_runs(process) for process in below), 2)


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_it_works_under_another_name_and_without_the_parents_main(tmp_path: Path) -> None:
    """As in ComfyUI, which loads packs under other names, from a main file that a child must not run again."""
    (tmp_path / "packs").mkdir()
    (tmp_path / "packs" / "other name").symlink_to(ROOT / "lowvram_core")
    main = tmp_path / "main.py"
    main.write_text(
        "import importlib.util, sys, os\n"
        f"open(os.path.join({str(tmp_path)!r}, 'runs'), 'a').write('x')\n"
        f"sys.path.append({str(Path(__file__).parent)!r})\n"
        f"path = {str(tmp_path / 'packs' / 'other name' / '__init__.py')!r}\n"
        "spec = importlib.util.spec_from_file_location('packs.x', path)\n"
        "module = importlib.util.module_from_spec(spec)\n"
        "sys.modules['packs'] = sys.modules['packs.x'] = module\n"
        "spec.loader.exec_module(module)\n"
        "import numpy as np\n"
        "unwrappers = importlib.import_module('packs.x.geometry.unwrappers')\n"
        "types = importlib.import_module('packs.x.types')\n"
        "import torch\n"
        "vertices = torch.tensor([[0., 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]])\n"
        "faces = torch.tensor([[0, 2, 1], [0, 1, 3], [1, 2, 3], [0, 3, 2]])\n"
        "notes = []\n"
        "mesh = unwrappers.unwrap_xatlas(types.Mesh(vertices, faces), None, notes.append)\n"
        "assert mesh.uvs is not None and len(mesh.faces) == 4 and not notes, notes\n"
    )
    run = subprocess.run([sys.executable, str(main)], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    assert (tmp_path / "runs").read_text() == "x"


@pytest.mark.parametrize("why", ["no python", "frozen", "cannot start", "no xatlas in it"])
def test_without_a_child_it_runs_here_and_says_so(why: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    if why == "no python":
        monkeypatch.setattr(sys, "executable", "")
    elif why == "frozen":
        monkeypatch.setattr(sys, "frozen", True, raising=False)
    elif why == "cannot start":
        monkeypatch.setattr(sys, "executable", str(tmp_path / "none"))
    else:
        monkeypatch.setattr(sys, "path", [])
    host = RecordingHost()
    mesh = unwrap(cube(), small_preset(unwrapper="xatlas"), host)
    monkeypatch.undo()
    (note,) = host.notes
    assert note.startswith("unwrap: no other process could be started for xatlas (")
    assert mesh.uvs is not None and mesh.uvs.equal(unwrap_xatlas(cube()).uvs)


def test_a_crash_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if xatlas, or the system for want of memory, had ended the worker."""

    def kill(done: int, total: int) -> None:
        for process in children(os.getpid()):
            if "--worker" in process.cmdline() and process.cpu_times().user > 0.5:
                process.kill()

    with pytest.raises(ChildEnded, match="ended with code"):
        parametrize_in_child(*_arrays(SLOW), 512, 5, kill)
    monkeypatch.setattr("lowvram_core.geometry.unwrappers.parametrize_in_child", _ended)
    with pytest.raises(BadInput, match=r"^unwrap: xatlas did not finish \(it fell\); wanted UVs\. Run Clean"):
        unwrap_xatlas(cube())


def _ended(*arguments: object) -> None:
    raise ChildEnded("it fell")


def test_a_refusal_comes_through() -> None:
    positions, faces = _arrays(cube())
    with pytest.raises(xatlas_script.Refused):
        parametrize_in_child(positions, np.full_like(faces, 1000), 512, 5)


def test_no_child_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(xatlas_child.xatlas_script, "__file__", "no such script.py")
    with pytest.raises(NoChild, match="before it had imported xatlas"):
        parametrize_in_child(*_arrays(cube()), 512, 5)
