"""The page of a run that the stack carries out, in a real browser, while it happens."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import sync_playwright

from tests import needs
from tests.stack.live import Live

pytestmark = [pytest.mark.xdist_group("stack"), pytest.mark.timeout(200), pytest.mark.browser]

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--disable-quic",
]


def test_the_page_of_the_demo_shows_it_live_and_the_same_after_a_reload(live: Live) -> None:
    program = needs.browser()
    login = re.search(r"admin / (\S+)", (live.home / "up.log").read_text())
    assert login, "the stack's first login"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=FLAGS)
        page = browser.new_page()
        complaints: list[str] = []
        page.on("console", lambda message: complaints.append(message.text))
        page.goto(f"{live.url}/login/")
        page.fill("[name=username]", "admin")
        page.fill("[name=password]", login.group(1))
        page.click("main button")
        page.wait_for_url(f"{live.url}/")
        run = live.start("demo")
        page.goto(f"{live.url}/runs/{run}/")
        early = page.locator("#log").inner_text()
        page.get_by_text("I would maintain this.").first.wait_for(timeout=90_000)
        live.await_end(run)
        page.get_by_text("Run succeeded").first.wait_for(timeout=10_000)
        shown = page.locator("#log").inner_text()
        page.reload()
        again = page.locator("#log").inner_text()
        browser.close()
    assert "I would maintain this." not in early
    assert shown.split() == again.split()
    assert complaints == []
