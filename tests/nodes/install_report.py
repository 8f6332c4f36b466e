"""What installing requirements.txt would do to an environment that runs ComfyUI already; nothing is installed.

    python tests/nodes/install_report.py [--keep] [PYTHON]

PYTHON is that environment's interpreter, this one if left out; --keep pins what is installed, as the README advises.
Exits with 1 where an installed version would change.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

REQUIREMENTS = Path(__file__).resolve().parents[2] / "requirements.txt"
_PIP = ("-m", "pip", "--disable-pip-version-check")
_UNREACHABLE = ("from versions: none", "Connection", "Max retries", "Temporary failure in name resolution")


class NoIndex(RuntimeError):
    """pip has no package index to ask."""


@dataclass
class Report:
    """Versions by package."""

    changed: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Installed, and what pip would put in its place."""
    added: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        lines = [f"changed  {name} {old} -> {new}" for name, (old, new) in sorted(self.changed.items())]
        lines += [f"added    {name} {version}" for name, version in sorted(self.added.items())]
        return "\n".join(lines) or "nothing to install"


def installed(python: str) -> dict[str, str]:
    """The environment's packages."""
    done = subprocess.run([python, *_PIP, "list", "--format", "json"], capture_output=True, text=True, check=True)
    return {_plain(item["name"]): item["version"] for item in json.loads(done.stdout)}


def report(python: str, requirements: Path = REQUIREMENTS, *, keep: bool = False) -> Report:
    """What pip would do; with `keep`, under constraints that pin every installed version.

    Raises:
        NoIndex: pip cannot reach one.
        RuntimeError: it cannot find versions that go together.
    """
    command = [python, *_PIP, "install", "--quiet", "--dry-run", "--report", "-", "-r", str(requirements)]
    before = installed(python)
    with TemporaryDirectory() as folder:
        pins = Path(folder) / "keep.txt"
        pins.write_text("\n".join(f"{name}=={version}" for name, version in before.items()), encoding="utf-8")
        command += ["-c", str(pins)] if keep else []
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    if done.returncode:
        kind = NoIndex if any(mark in done.stderr for mark in _UNREACHABLE) else RuntimeError
        raise kind(f"pip: {done.stderr.strip()[-800:]}")
    found = Report()
    for item in json.loads(done.stdout)["install"]:
        name, version = _plain(item["metadata"]["name"]), item["metadata"]["version"]
        if name not in before:
            found.added[name] = version
        elif before[name] != version:
            found.changed[name] = (before[name], version)
    return found


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


if __name__ == "__main__":
    named = [argument for argument in sys.argv[1:] if argument != "--keep"]
    result = report(named[0] if named else sys.executable, keep="--keep" in sys.argv)
    sys.stdout.write(f"{result}\n")
    sys.exit(bool(result.changed))
