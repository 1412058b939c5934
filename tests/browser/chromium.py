"""The system's Chromium; Playwright's own browsers are not needed."""

from __future__ import annotations

import os
import shutil

from playwright.sync_api import Browser, Playwright, ViewportSize

VIEW = ViewportSize(width=1280, height=800)

_QUIET = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --no-proxy-server"
    " --disable-background-networking --disable-component-update --disable-sync"
)


def find() -> str | None:
    return os.environ.get("CHROMIUM") or shutil.which("chromium")


def launch(playwright: Playwright, path: str) -> Browser:
    return playwright.chromium.launch(executable_path=path, args=_QUIET.split(), timeout=30_000)
