"""Runs comfy-test with the machine's own Chromium: `python comfy_test_here.py <its arguments>`.

comfy-test starts the browser that Playwright downloads, and installs Mesa with apt-get. Here it does neither.
"""

from __future__ import annotations

import runpy
import sys
from typing import Any

from comfy_server import BROWSER
from comfy_test.reporting import screenshot
from playwright.sync_api import BrowserType

launch = BrowserType.launch


def with_own_browser(kind: BrowserType, **settings: Any) -> Any:
    """Starts the browser that CHROMIUM or the PATH names. A container has no sandbox for it."""
    settings["args"] = [*settings.get("args", ()), "--no-sandbox"]
    return launch(kind, executable_path=BROWSER, **settings)


BrowserType.launch = with_own_browser
screenshot._ensure_mesa_linux = lambda log: False

if __name__ == "__main__":
    sys.argv[0] = "comfy-test"
    runpy.run_module("comfy_test", run_name="__main__")
