"""A web process of its own on the test's database, and what Chromium sees of it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

from django.db import connection
from playwright.sync_api import Browser, ConsoleMessage, Page

from djinn.runs.models import Run

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--disable-quic",
]
SECONDS = 30
APPLICATION = "web-of-browser-tests"


class WebProcess:
    """The web process on a port of its own, which it keeps over a restart."""

    def __init__(self, log: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._log = log
        self.start()

    def start(self) -> None:
        """Start it and wait until it answers."""
        database = os.environ["DATABASE_URL"].replace(
            "/djinn?", f"/{connection.settings_dict['NAME']}?application_name={APPLICATION}&"
        )
        command = [sys.executable, "-m", "djinn.core.serving", "djinn.asgi:application", "--port", str(self.port)]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                command, env={**os.environ, "DATABASE_URL": database}, stdout=log, stderr=subprocess.STDOUT
            )
        deadline = time.monotonic() + SECONDS
        while not self._answers():
            assert self._process.poll() is None, self._log.read_text()
            assert time.monotonic() < deadline, self._log.read_text()
            time.sleep(0.05)

    def stop(self) -> None:
        """Kill it and wait until the database has noticed."""
        self._process.kill()
        self._process.wait(SECONDS)
        deadline = time.monotonic() + SECONDS
        while sessions():
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/healthz", timeout=2) as answer:
                return answer.status == 200
        except (OSError, urllib.error.URLError):
            return False


def sessions() -> int:
    """How many connections of the web process the database has."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_stat_activity WHERE application_name = %s", [APPLICATION])
        return int(cursor.fetchone()[0])


class Complaints(list[str]):
    """What a page's console complains about: errors of scripts, of the network, and of the security policy."""

    def watch(self, page: Page) -> None:
        page.on("console", self._console)
        page.on("pageerror", lambda error: self.append(str(error)))

    def _console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.append(message.text)


def open_run(browser: Browser, web: WebProcess, run: Run, *, has_scripts: bool = True) -> tuple[Page, Complaints]:
    """The run's page, live if scripts run, seen by `olga`, who logged in with the form."""
    page = browser.new_page(viewport={"width": 1280, "height": 900}, java_script_enabled=has_scripts)
    complaints = Complaints()
    complaints.watch(page)
    page.goto(f"{web.url}/runs/{run.pk}/")
    page.fill("[name=username]", "olga")
    page.fill("[name=password]", "correct horse")
    page.click("main button")
    page.wait_for_selector("#connection[data-state=live]" if has_scripts else "#connection")
    return page, complaints


def photograph(page: Page, folder: Path, name: str) -> None:
    """Both themes at both widths, as files; nothing may stick out to the side."""
    for width in (390, 1280):
        page.set_viewport_size({"width": width, "height": 900})
        for theme in ("light", "dark"):
            page.emulate_media(color_scheme=theme)
            page.screenshot(path=folder / f"{name}-{theme}-{width}.png", full_page=True)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), f"{name} is wider than {width}"
