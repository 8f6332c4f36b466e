"""Set-up of every test process, and what a run says at its end about tests that it left out."""

from __future__ import annotations

import gc
import os
import sys
from collections import Counter
from collections.abc import Generator
from pathlib import Path

import pytest

# Before torch is imported: it takes the number of threads of OpenMP from here, in child processes, too.
os.environ["OMP_NUM_THREADS"] = "1"

import torch

ROOT = Path(__file__).resolve().parent.parent
for folder in (ROOT, ROOT / "tests", ROOT / "tests" / "devices"):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
sys.path += [str(ROOT / name) for name in ("benchmarks", "texts") if str(ROOT / name) not in sys.path]

torch.set_num_threads(1)

STARTED = pytest.StashKey[float]()
LONG = ("test_vram.py", "test_full_device.py", "test_demo.py", "test_exact_networks.py", "test_network_stages.py",
        "test_bench.py", "test_results.py", "test_node_runs.py", "test_speed_bench.py",
        "test_references.py", "test_turbo_paint.py", "test_texels.py")  # fmt: skip
"""The files that take longest. They run first, so that no worker starts one when the others have finished."""

COMFYUI = "COMFYUI_PATH=<ComfyUI's folder> COMFYUI_PYTHON=<the Python that runs ComfyUI>"
COMMANDS = {
    suite: f"{COMFYUI} {{python}} -m pytest {suite.rstrip('/')}"
    for suite in ("tests/comfyui/", "tests/nodes/test_requirements.py")
}
"""How to run the suites that need more than `make install`, by the beginning of the tests' names."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the longest files first and keeps the order of all others."""
    items.sort(key=lambda item: LONG.index(item.path.name) if item.path.name in LONG else len(LONG))


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds --comfyui, for `make test`."""
    parser.addoption(
        "--comfyui", choices=("all", "part"), default="all",
        help="part: of tests/comfyui only what takes less than a minute; all: everything (the default)",
    )  # fmt: skip


def cpu_seconds() -> float:
    """CPU seconds of this process and of its children that have ended."""
    return sum(os.times()[:4])


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Notes when the test starts."""
    item.stash[STARTED] = cpu_seconds()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Adds the CPU seconds of the test with its fixtures to its last report."""
    report = yield
    if call.when == "teardown":
        report.user_properties.append(("cpu", cpu_seconds() - item.stash[STARTED]))
    return report


def pytest_collection_finish() -> None:
    """Takes everything imported so far out of garbage collection, which the tests and the stages call very often."""
    gc.collect()
    gc.freeze()


def skipped_suites(reports: list[pytest.TestReport | pytest.CollectReport], python: str) -> list[str]:
    """One line for each reason why tests were skipped, and after it the command that runs them."""
    found: Counter[tuple[str, str]] = Counter()
    for report in reports:
        reason = report.longrepr[2] if isinstance(report.longrepr, (tuple, list)) else str(report.longrepr)
        suite = next((suite for suite in COMMANDS if report.nodeid.startswith(suite)), report.nodeid.split("::")[0])
        found[suite, reason.removeprefix("Skipped: ")] += 1
    lines = []
    for (suite, reason), count in sorted(found.items()):
        lines.append(f"{suite}: {count} skipped, {reason}")
        if suite in COMMANDS:
            lines.append(f"    {COMMANDS[suite].format(python=python)}")
    return lines


def costs(reports: list[pytest.TestReport]) -> list[str]:
    """The CPU seconds of all tests, then those of the files that take most of them."""
    files: Counter[str] = Counter()
    for report in reports:
        files[report.nodeid.split("::")[0]] += dict(report.user_properties).get("cpu", 0.0)
    total = sum(files.values())
    return [f"{total:7.0f} s  all tests", *(f"{seconds:7.0f} s  {name}" for name, seconds in files.most_common(12))]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Names the costly files and the skipped suites.

    With xdist this runs in the process that collects the workers' reports.
    """
    ended = [one for some in terminalreporter.stats.values() for one in some if getattr(one, "when", "") == "teardown"]
    if len(ended) > 100:
        terminalreporter.section("CPU time, with fixtures and child processes")
        for line in costs(ended):
            terminalreporter.write_line(line)
    python = os.path.relpath(sys.executable, ROOT) if Path(sys.executable).is_relative_to(ROOT) else sys.executable
    lines = skipped_suites(terminalreporter.stats.get("skipped", []), python)
    if lines:
        terminalreporter.section("skipped tests, and the commands that run them")
        for line in lines:
            terminalreporter.write_line(line)
    if any(line.startswith("tests/comfyui/") and "COMFYUI_PATH" in line for line in lines):
        terminalreporter.write_sep("!", "NOTHING WAS TESTED IN A REAL COMFYUI: COMFYUI_PATH is not set", red=True)
