"""A real browser for tests: the system's Chromium, driven by Playwright, which says all that a page does wrong."""

from __future__ import annotations

import os
import shutil
import time
from typing import TYPE_CHECKING, Any, Final, final

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser, Page

WAIT_S: Final = 30.0
_PROGRAMS: Final = ("chromium", "chromium-browser", "google-chrome")
# No sandbox: the tests may run as root. The rest keeps the browser from calling home.
_ARGUMENTS: Final = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
)
_WATCH: Final = """
window.violations = [];
document.addEventListener("securitypolicyviolation", (event) => violations.push(event.violatedDirective));
"""


@final
class Tab:
    """A page of the browser, and what it has complained of or asked for."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.complaints: list[str] = []
        self.requests: list[str] = []
        page.add_init_script(_WATCH)
        page.on("console", lambda message: self._note(message.type, message.text))
        page.on("pageerror", lambda error: self.complaints.append(f"error: {error}"))
        page.on("dialog", lambda dialog: self.complaints.append(f"dialog: {dialog.message}"))
        page.on("request", lambda request: self.requests.append(request.url))

    def _note(self, kind: str, text: str) -> None:
        if kind in {"error", "warning", "assert"}:
            self.complaints.append(f"{kind}: {text}")

    def text(self, selector: str) -> str:
        return self.page.locator(selector).first.inner_text()

    def texts(self, selector: str) -> list[str]:
        return self.page.locator(f"{selector}:visible").all_inner_texts()

    def count(self, selector: str) -> int:
        return self.page.locator(selector).count()

    def run(self, script: str) -> Any:
        return self.page.evaluate(script)

    def press(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)

    def wait(self, condition: str) -> None:
        """Wait until an expression of JavaScript is true."""
        # Playwright's own waiting evaluates text inside the page, which the page's policy forbids.
        deadline = time.monotonic() + WAIT_S
        while not self.run(condition):
            assert time.monotonic() < deadline, f"not in {WAIT_S} s: {condition}"
            self.page.wait_for_timeout(20)

    def has_focus(self, selector: str) -> bool:
        return bool(self.run(f"document.activeElement?.matches({selector!r}) ?? false"))


# A module at a time: while Playwright's loop runs, asyncio.run() of other tests would refuse.
@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    program = next(filter(None, map(shutil.which, _PROGRAMS)), None)
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        _not_there("Playwright is not installed")
        raise
    if program is None:
        _not_there(f"none of {', '.join(_PROGRAMS)} is installed")
    with sync_playwright() as playwright:
        # A profile of its own each time, in a directory that is removed.
        browser = playwright.chromium.launch(executable_path=program, args=list(_ARGUMENTS))
        yield browser
        browser.close()


@pytest.fixture
def tab(chromium: Browser) -> Iterator[Tab]:
    """A window of 1,440 by 900, light, without memory; the test fails if its page complains of anything."""
    context = chromium.new_context(viewport={"width": 1440, "height": 900}, color_scheme="light", locale="en-GB")
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    tab = Tab(context.new_page())
    yield tab
    violations = tab.run("window.violations ?? []")
    context.close()
    assert tab.complaints == []
    assert violations == []


def _not_there(reason: str) -> None:
    if os.environ.get("TRACEKIT_REQUIRE_BROWSER"):
        pytest.fail(reason)
    pytest.skip(reason)
