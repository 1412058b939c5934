"""A real stack, a real browser, and jobs of every kind in every pool; started once, each test looks at it.

The browser is the one that CHROMIUM names, or else `chromium` of PATH.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from tests.browser.scene import Scene
from tests.browser.views import VIEW, find, launch


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Chromium; on a person's machine the tests are skipped without one, in CI they fail."""
    path = find()
    if path is None:
        why = "expected Chromium, found none: set CHROMIUM to its path, or install it (Debian: apt install chromium)"
        if os.environ.get("CI"):
            pytest.fail(why)
        pytest.skip(why)
    with sync_playwright() as playwright, launch(playwright, path) as browser:
        yield browser


@pytest.fixture(scope="session")
def scene(browser: Browser) -> Iterator[Scene]:
    with Scene() as scene:
        yield scene


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page of a browser that has never seen Flower before."""
    with browser.new_context(viewport=VIEW) as context:
        context.set_default_timeout(10_000)
        yield context.new_page()
