"""Models folders: where they are looked for, what counts as whole, and downloads from a hub on this machine."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import struct
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from filelock import FileLock
from hub_server import Hub, serving

from lowvram_core.errors import BadCheckpoint, BadInput, Cancelled, MissingModel
from lowvram_core.files import download
from lowvram_core.files.manifest import MODELS, Model, ModelFile
from lowvram_core.files.store import ModelStore, default_roots

CONFIG = b'{"_class_name": "Test"}'


def safetensors_bytes(floats: int = 1000) -> bytes:
    header = json.dumps({"w": {"dtype": "F32", "shape": [floats], "data_offsets": [0, 4 * floats]}}).encode()
    return struct.pack("<Q", len(header)) + header + os.urandom(4 * floats)


WEIGHTS = safetensors_bytes(500_000)
ONNX = os.urandom(30_000)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def small_manifest(address: str = "http://127.0.0.1:1") -> dict[str, Model]:
    unet = ModelFile(
        "unet/net.safetensors", len(WEIGHTS), sha256=sha256(WEIGHTS), instead=("unet/net.bin",)
    )  # fmt: skip
    notes = ModelFile("notes.txt", 5, "about", optional=True)
    onnx = ModelFile(
        "u2netp.onnx", len(ONNX), md5=hashlib.md5(ONNX).hexdigest(), url=f"{address}/release/u2netp.onnx"
    )  # fmt: skip
    return {
        "paint": Model("paint", "owner/name", "folder", "a licence", (ModelFile("model_index.json", 23), unet, notes)),
        "background/u2netp": Model("background/u2netp", "", "rembg", "a licence", (onnx,)),
    }


@pytest.fixture
def hub() -> Iterator[Hub]:
    files = {
        "owner/name/folder/model_index.json": CONFIG,
        "owner/name/folder/unet/net.safetensors": WEIGHTS,
        "owner/name/folder/notes.txt": b"notes",
        "release/u2netp.onnx": ONNX,
    }
    with serving(Hub(files)) as running:
        yield running


@pytest.fixture(autouse=True)
def no_surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("HF_HUB_OFFLINE", "U2NET_HOME", "REMBG_HOME", "HY3D_LOWVRAM_MODELS", "HY3DGEN_MODELS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr("time.sleep", lambda seconds: None)


def fill(folder: Path, weights: bytes = WEIGHTS, name: str = "unet/net.safetensors") -> Path:
    (folder / "unet").mkdir(parents=True)
    (folder / "model_index.json").write_bytes(CONFIG)
    (folder / name).write_bytes(weights)
    return folder


def online(hub: Hub, root: Path) -> ModelStore:
    return ModelStore([root], endpoint=hub.address, models=small_manifest(hub.address))


def offline(*roots: Path) -> ModelStore:
    return ModelStore(roots, offline=True, models=small_manifest())


def leftovers(root: Path) -> list[str]:
    return sorted(path.name for path in root.rglob("*") if path.is_file())


@pytest.mark.parametrize("place", ["folder", "name/folder", "owner/name/folder"])
def test_a_models_folder_is_searched_in_three_layouts(tmp_path: Path, place: str) -> None:
    wanted = fill(tmp_path / "b" / place)
    assert offline(tmp_path / "a", tmp_path / "b").folder("paint") == wanted


def test_the_first_root_wins_and_incomplete_folders_do_not_count(tmp_path: Path) -> None:
    (fill(tmp_path / "a" / "folder") / "model_index.json").unlink()
    second = fill(tmp_path / "b" / "folder")
    fill(tmp_path / "c" / "folder")
    store = offline(tmp_path / "a", tmp_path / "b", tmp_path / "c")
    assert store.folder("paint") == second
    assert store.is_present("paint") and not store.is_present("background/u2netp")


def test_korean_names_and_spaces(tmp_path: Path, hub: Hub) -> None:
    root = tmp_path / "내 모델 폴더" / "하이퍼 3D"
    store = online(hub, root)
    assert store.folder("paint") == root / "name" / "folder"
    assert offline(root).folder("paint") == root / "name" / "folder"
    assert store.folder("background/u2netp") == root / "rembg"


def test_a_bin_does_instead_of_safetensors(tmp_path: Path) -> None:
    folder = fill(tmp_path / "folder", name="unet/net.bin")
    with zipfile.ZipFile(folder / "unet" / "net.bin", "w") as archive:
        archive.writestr("archive/data.pkl", b"weights")
    assert offline(tmp_path).folder("paint") == folder


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("unet/net.safetensors", b""),
        ("unet/net.safetensors", WEIGHTS[: len(WEIGHTS) // 2]),
        ("unet/net.safetensors", b"<html>404 not found, but with status 200</html>"),
        ("unet/net.safetensors", WEIGHTS[:20]),
        ("unet/net.bin", b"PK\x03\x04 cut off"),
        ("model_index.json", b'{"_class'),
    ],
)
def test_damaged_files_are_named_with_their_sizes(tmp_path: Path, name: str, content: bytes) -> None:
    folder = fill(tmp_path / "folder")
    if name.endswith(".bin"):
        (folder / "unet" / "net.safetensors").unlink()
    (folder / name).write_bytes(content)
    with pytest.raises(BadCheckpoint) as caught:
        offline(tmp_path).folder("paint")
    for part in (str(folder / name), f"{len(content):,} bytes", "Delete it and run again"):
        assert part in str(caught.value)


def test_what_is_missing_is_named_with_folder_files_and_address(tmp_path: Path) -> None:
    (fill(tmp_path / "b" / "folder") / "model_index.json").unlink()
    with pytest.raises(MissingModel) as caught:
        offline(tmp_path / "a", tmp_path / "b").folder("paint")
    for part in (
        f"incomplete: {tmp_path / 'b' / 'folder'} (lacks model_index.json)",
        f"searched:\n  {tmp_path / 'b'}\n  not there: 1 more",
        "unet/net.safetensors  2.0 MB", "https://huggingface.co/owner/name/tree/main/folder", "a licence",
        "models: paint is missing, 2.00 MB in all, and cannot be downloaded (downloads are switched off); wanted",
        f"to {tmp_path / 'a' / 'name' / 'folder'}\n", f"Downloads go to {tmp_path / 'a'}, where", "free; that is",
    ):  # fmt: skip
        assert part in str(caught.value)


def test_a_download_reports_and_arrives_whole(tmp_path: Path, hub: Hub) -> None:
    reports: list[tuple[int, int]] = []
    told: list[str] = []
    store = online(hub, tmp_path)
    folder = store.place("paint", lambda done, total: reports.append((done, total)), told.append).folder
    assert told[0].startswith("downloading paint: model_index.json, ") and told[-1].startswith("downloading paint: ")
    assert "2.00 of 2.00 MB" in told[-1]
    assert folder == tmp_path / "name" / "folder"
    assert (folder / "unet" / "net.safetensors").read_bytes() == WEIGHTS
    assert leftovers(tmp_path) == ["model_index.json", "net.safetensors", "notes.txt"]
    total = len(WEIGHTS) + len(CONFIG) + 5
    assert reports[0] == (0, total) and reports[-1] == (total, total)
    assert reports == sorted(reports)
    hub.seen.clear()
    assert online(hub, tmp_path).folder("paint") == folder
    assert not hub.seen


def test_files_behind_a_redirect(tmp_path: Path, hub: Hub) -> None:
    hub.redirect = True
    folder = online(hub, tmp_path).folder("paint")
    assert (folder / "unet" / "net.safetensors").read_bytes() == WEIGHTS
    assert online(hub, tmp_path).folder("background/u2netp") == tmp_path / "rembg"


def test_only_what_is_missing_is_fetched(tmp_path: Path, hub: Hub) -> None:
    (fill(tmp_path / "name" / "folder") / "model_index.json").unlink()
    online(hub, tmp_path).folder("paint")
    assert not hub.gets("net.safetensors") and len(hub.gets("model_index.json")) == 1


def test_a_dropped_connection_is_resumed_at_once(tmp_path: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 4096)
    hub.drop_after = [10_000]
    folder = online(hub, tmp_path).folder("background/u2netp")
    assert (folder / "u2netp.onnx").read_bytes() == ONNX
    assert hub.gets("u2netp.onnx") == ["", "bytes=8192-"]


def test_a_stopped_download_is_resumed_by_the_next_run(
    tmp_path: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server sends half of the file and then nothing more. A cancel ends the wait at once."""
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 100_000)
    hub.go_on, hub.waits = threading.Event(), "net.safetensors"
    asked: list[float] = []

    def stop(done: int, total: int) -> None:
        if done > len(WEIGHTS) // 3:
            if not asked:
                asked.append(time.monotonic())
            elif time.monotonic() > asked[0] + 0.5:  # nothing comes any more
                asked.append(time.monotonic())
                raise Cancelled("stopped by the test")

    with pytest.raises(Cancelled):
        online(hub, tmp_path).place("paint", stop)
    assert time.monotonic() - asked[1] < 1
    assert not offline(tmp_path).is_present("paint")
    found = offline(tmp_path).look("paint")
    (part,) = (tmp_path / "name" / "folder" / "unet").iterdir()
    have = part.stat().st_size
    assert len(WEIGHTS) // 3 < have <= len(WEIGHTS) // 2
    assert found.bytes_left == len(WEIGHTS) - have + 5, "what is known without asking the server"
    hub.go_on.set()
    threading.Event().wait(0.3)
    assert part.stat().st_size == have, "the thread that fetched writes nothing more"
    hub.seen.clear()
    reports: list[int] = []
    folder = online(hub, tmp_path).place("paint", lambda done, total: reports.append(done)).folder
    assert folder is not None and (folder / "unet" / "net.safetensors").read_bytes() == WEIGHTS
    assert hub.gets("net.safetensors") == [f"bytes={have}-"]
    assert reports[0] == have
    assert leftovers(tmp_path) == ["model_index.json", "net.safetensors", "notes.txt"]


def test_a_whole_part_is_checked_and_not_fetched_again(
    tmp_path: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cancel while the hash is computed loses nothing."""
    monkeypatch.setattr(download, "BLOCK_BYTES", 100_000)
    seen: list[int] = []

    def stop(done: int, total: int) -> None:
        seen.append(done)
        if len(seen) > 2 and seen[-1] == seen[-2] == seen[-3] and done > len(WEIGHTS):
            raise Cancelled("stopped by the test")

    with pytest.raises(Cancelled):
        online(hub, tmp_path).place("paint", stop)
    (part,) = (tmp_path / "name" / "folder" / "unet").glob("*.part")
    assert part.stat().st_size == len(WEIGHTS)
    hub.seen.clear()
    assert (online(hub, tmp_path).folder("paint") / "unet" / "net.safetensors").read_bytes() == WEIGHTS
    assert not hub.gets("net.safetensors")


def test_a_server_without_ranges_starts_over(tmp_path: Path, hub: Hub) -> None:
    hub.ignore_range = True
    target = tmp_path / "name" / "folder" / "unet" / "net.safetensors"
    target.parent.mkdir(parents=True)
    download.part_path(target, sha256(WEIGHTS)).write_bytes(b"x" * 1000)
    assert (online(hub, tmp_path).folder("paint") / "unet" / "net.safetensors").read_bytes() == WEIGHTS


def test_a_connection_that_keeps_dropping_says_so_and_keeps_the_part(tmp_path: Path, hub: Hub) -> None:
    hub.drop_after = [0] * 20
    with pytest.raises(MissingModel, match="Run again: it goes on where it stopped"):
        online(hub, tmp_path).folder("background/u2netp")
    assert not online(hub, tmp_path).is_present("background/u2netp")
    assert leftovers(tmp_path) == [".background-u2netp.lock"], "nothing came, so nothing is kept"


@pytest.mark.parametrize(
    ("model_id", "etag"), [("paint", sha256(WEIGHTS)), ("paint", "no-hash"), ("background/u2netp", "")],
    ids=["sha256 of the hub", "sha256 of the manifest", "md5"],
)  # fmt: skip
def test_a_file_with_another_content_is_not_kept(tmp_path: Path, hub: Hub, model_id: str, etag: str) -> None:
    """Whether the server names the published hash for it, or none."""
    name = "owner/name/folder/unet/net.safetensors"
    hub.files[name], hub.etags[name] = safetensors_bytes(500_000), etag
    hub.files["release/u2netp.onnx"] = os.urandom(len(ONNX))
    with pytest.raises(MissingModel, match=r"(sha256|md5) [0-9a-f]+ instead of"):
        online(hub, tmp_path).folder(model_id)
    assert not [name for name in leftovers(tmp_path) if name.startswith((".net", "net", ".u2netp.onnx", "u2netp"))]


@pytest.mark.parametrize("floats", [500_000, 499_999])
@pytest.mark.parametrize("redirect", [False, True])
def test_a_server_that_names_its_own_hash_or_size_is_refused(
    tmp_path: Path, hub: Hub, floats: int, redirect: bool
) -> None:
    """The manifest counts, and nothing is fetched from such a server."""
    other = safetensors_bytes(floats)
    hub.files["owner/name/folder/unet/net.safetensors"], hub.redirect = other, redirect
    same_size = len(other) == len(WEIGHTS)
    met, wanted = (f"sha256 {sha256(other)}", sha256(WEIGHTS)) if same_size else (f"{len(other):,} bytes", "2,000,0")
    with pytest.raises(MissingModel, match=rf"net\.safetensors has {met} instead of {wanted}.*use another mirror"):
        online(hub, tmp_path).folder("paint")
    assert not hub.gets() and not leftovers(tmp_path)


def test_a_mirror_without_hashes_is_checked_and_resumed_by_the_manifest(tmp_path: Path, hub: Hub) -> None:
    """And the size of a text file is the server's, since the manifest knows it only about."""
    name = "owner/name/folder/unet/net.safetensors"
    hub.etags[name], hub.files["owner/name/folder/notes.txt"] = "12-345", b"longer notes"
    part = download.part_path(tmp_path / "name" / "folder" / "unet" / "net.safetensors", sha256(WEIGHTS))
    part.parent.mkdir(parents=True)
    part.write_bytes(WEIGHTS[:1000])
    folder = online(hub, tmp_path).folder("paint")
    assert (folder / "unet" / "net.safetensors").read_bytes() == WEIGHTS
    assert (folder / "notes.txt").read_bytes() == b"longer notes"
    assert hub.gets("net.safetensors") == ["bytes=1000-"]


ANOTHER_PROCESS = """
import sys
from lowvram_core.files.manifest import Model, ModelFile
from lowvram_core.files.store import ModelStore

root, address, size, sha256 = sys.argv[1:]
model = Model("paint", "owner/name", "folder", "", (ModelFile("unet/net.safetensors", int(size), sha256=sha256),))
reports = []
ModelStore([root], endpoint=address, models={"paint": model}).place("paint", lambda *report: reports.append(report))
assert reports[-1] == (int(size), int(size)) and reports == sorted(reports), reports
"""


def wait_for(condition: Callable[[], bool]) -> None:
    """time.sleep is switched off here."""
    for _ in range(1200):
        if condition():
            return
        threading.Event().wait(0.05)
    raise AssertionError("not within a minute")


def test_two_processes_never_write_one_part(tmp_path: Path, hub: Hub) -> None:
    """The second one waits, then finds the file and downloads nothing."""
    hub.go_on = threading.Event()
    command = [sys.executable, "-c", ANOTHER_PROCESS, str(tmp_path), hub.address, str(len(WEIGHTS)), sha256(WEIGHTS)]
    root = Path(__file__).resolve().parents[2]
    running = [subprocess.Popen(command, cwd=root, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    try:
        wait_for(lambda: sum(method == "HEAD" for method, *_ in hub.seen) == 2 and len(hub.gets()) >= 1)
        threading.Event().wait(1.0)
        assert len(hub.gets()) == 1
        hub.go_on.set()
        for process in running:
            _, errors = process.communicate(timeout=60)
            assert process.returncode == 0, errors
    finally:
        hub.go_on.set()
        for process in running:
            process.kill()
            process.wait()
    assert hub.gets() == [""]
    assert (tmp_path / "name" / "folder" / "unet" / "net.safetensors").read_bytes() == WEIGHTS
    assert leftovers(tmp_path) == ["net.safetensors"]


def test_waiting_for_another_process_can_be_cancelled(tmp_path: Path, hub: Hub) -> None:
    folder = tmp_path / "name" / "folder"
    folder.mkdir(parents=True)
    reports: list[tuple[int, int]] = []

    def stop(done: int, total: int) -> None:
        reports.append((done, total))
        if len(reports) == 3:
            raise Cancelled("stopped by the test")

    with FileLock(folder / ".paint.lock"), pytest.raises(Cancelled):
        online(hub, tmp_path).place("paint", stop)
    assert set(reports) == {(0, len(WEIGHTS) + len(CONFIG) + 5)}
    assert not hub.gets() and leftovers(tmp_path) == [".paint.lock"]
    online(hub, tmp_path).folder("paint")
    assert leftovers(tmp_path) == ["model_index.json", "net.safetensors", "notes.txt"]


def test_a_file_system_without_locks_is_used_all_the_same(
    tmp_path: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def unsupported(self: FileLock, timeout: float) -> None:
        raise NotImplementedError("FileSystem does not appear to support flock")

    monkeypatch.setattr(download.FileLock, "acquire", unsupported)
    assert online(hub, tmp_path).folder("paint")
    assert "has no locks" in caplog.text


def test_files_that_the_hub_does_not_have(tmp_path: Path, hub: Hub) -> None:
    hub.files.clear()
    with pytest.raises(MissingModel, match=r"model_index\.json could not be fetched"):
        online(hub, tmp_path).folder("paint")
    with pytest.raises(MissingModel, match="stopped"):
        online(hub, tmp_path).folder("background/u2netp")


def test_no_server_at_all(tmp_path: Path) -> None:
    store = ModelStore([tmp_path], endpoint="http://127.0.0.1:1", models=small_manifest())
    for model_id in ("paint", "background/u2netp"):
        with pytest.raises(MissingModel):
            store.folder(model_id)


def test_offline_by_argument_and_by_environment(tmp_path: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    store = ModelStore([tmp_path], offline=True, endpoint=hub.address, models=small_manifest(hub.address))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for asked in (store, online(hub, tmp_path)):
        for model_id in ("paint", "background/u2netp"):
            with pytest.raises(MissingModel, match="downloads are switched off"):
                asked.folder(model_id)
    assert not hub.seen
    with pytest.raises(MissingModel, match=r"no folder to download to.*\n(.*\n)+  none"):
        ModelStore([], models=small_manifest()).folder("paint")


BOTH = ("paint", "background/u2netp")


def test_a_runs_models_are_checked_without_a_download(tmp_path: Path, hub: Hub) -> None:
    """Where they can be fetched it says nothing; a damaged file is told although another model is missing."""
    online(hub, tmp_path).require(BOTH)
    assert hub.seen and not hub.gets() and not leftovers(tmp_path)
    folder = fill(tmp_path / "folder", WEIGHTS[:1000])
    with pytest.raises(BadCheckpoint, match=str(folder)):
        offline(tmp_path).require(reversed(BOTH))


@pytest.mark.parametrize("what", ["offline", "no server", "no room", "other content"])
def test_what_cannot_be_had_is_one_list(tmp_path: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    store = online(hub, tmp_path)
    why = {"offline": "downloads are switched off", "no server": r"model_index\.json could not be fetched",
           "no room": r"0\.00 GB free of the 0\.27 GB that are needed",
           "other content": r"model_index\.json has 7 bytes instead of 23"}[what]  # fmt: skip
    if what == "offline":
        store.offline = True
    elif what == "no server":
        store.endpoint = "http://127.0.0.1:1"
    elif what == "no room":
        usage = shutil.disk_usage(tmp_path)
        monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1_000_000))
    else:
        hub.files["owner/name/folder/model_index.json"] = b"another"
    wanted = rf"(?s)^models: paint, background/u2netp are missing, 2\.03 MB in all, and cannot be downloaded \(.*{why}"
    with pytest.raises(MissingModel, match=wanted) as caught:
        store.require(BOTH)
    text = str(caught.value)
    for part in ("unet/net.safetensors  2.0 MB", "small files: model_index.json, notes.txt", "licence: a licence",
                 "small files: u2netp.onnx", f"{hub.address}/release/u2netp.onnx",
                 f"Downloads go to {tmp_path}, where"):  # fmt: skip
        assert part in text, text
    assert ("not enough" in text) == (what == "no room")
    assert not hub.gets() and not leftovers(tmp_path)


def test_what_a_run_may_need_is_listed_but_stops_nothing(tmp_path: Path) -> None:
    with pytest.raises(MissingModel, match="models: paint, background/u2netp are missing"):
        offline(tmp_path).require(["paint"], ["background/u2netp", "paint"])
    fill(tmp_path / "folder")
    offline(tmp_path).require(["paint"], ["background/u2netp"])


def test_a_full_disk_is_noticed_before_the_download(tmp_path: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1_000_000))
    with pytest.raises(BadInput, match=r"0\.00 GB free; wanted 0\.27 GB"):
        online(hub, tmp_path).folder("paint")
    assert not hub.gets() and not leftovers(tmp_path)


def test_a_disk_that_fills_up_meanwhile_is_bad_input(tmp_path: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: download._Counted, data: bytes) -> int:
        self.failed = True
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(download._Counted, "write", full)
    with pytest.raises(BadInput, match="its disk is full"):
        online(hub, tmp_path).folder("paint")
    assert not offline(tmp_path).is_present("paint")


def test_a_root_that_cannot_be_written_is_bad_input(tmp_path: Path, hub: Hub) -> None:
    (tmp_path / "file").write_bytes(b"not a folder")
    with pytest.raises(BadInput, match="cannot be written"):
        online(hub, tmp_path / "file").folder("paint")


@pytest.mark.parametrize("place", ["rembg", "u2net", "."])
def test_rembgs_models_in_a_models_folder(tmp_path: Path, place: str) -> None:
    (tmp_path / place).mkdir(exist_ok=True)
    (tmp_path / place / "u2netp.onnx").write_bytes(ONNX)
    assert offline(tmp_path).folder("background/u2netp") == tmp_path / place


def test_rembgs_own_folders_are_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for home in (".rembg/models/u2netp", ".u2net"):
        folder = tmp_path / "home" / home
        folder.mkdir(parents=True)
        (folder / "u2netp.onnx").write_bytes(ONNX)
        assert offline(tmp_path / "models").folder("background/u2netp") == folder
        (folder / "u2netp.onnx").unlink()
    (tmp_path / "u2netp.onnx").write_bytes(ONNX)
    monkeypatch.setenv("U2NET_HOME", str(tmp_path))
    assert offline(tmp_path / "models").folder("background/u2netp") == tmp_path


def test_a_truncated_onnx_is_a_bad_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "u2netp.onnx").write_bytes(ONNX[:100])
    with pytest.raises(BadCheckpoint, match=r"100 bytes; the published file has 30,000"):
        offline(tmp_path).folder("background/u2netp")


def test_default_roots(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert default_roots() == [tmp_path / "home" / ".cache" / "hy3dgen"]
    monkeypatch.setenv("HY3D_LOWVRAM_MODELS", os.pathsep.join(["/one", "~/두 번째"]))
    monkeypatch.setenv("HY3DGEN_MODELS", "/three")
    assert default_roots()[:3] == [Path("/one"), tmp_path / "home" / "두 번째", Path("/three")]


def test_the_real_manifest_is_the_default(tmp_path: Path) -> None:
    store = ModelStore([tmp_path], offline=True)
    assert store.models is MODELS and store.download_to == tmp_path
    with pytest.raises(BadInput, match="shape/v2-0"):
        store.folder("shape/unknown")


def test_a_drive_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "exists", lambda self: False)
    with pytest.raises(BadInput, match=r"models: .* on a drive that is not there; wanted"):
        download.check_room(Path("Z:/models"), 1)
