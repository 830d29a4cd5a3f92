"""A browser for the tests of pages: Debian's Chromium, driven by playwright, without a network."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

OFFLINE = (
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
SOFTWARE_WEBGL = ("--use-angle=swiftshader", "--enable-unsafe-swiftshader")
NO_WEBGL = ("--disable-3d-apis",)


@dataclass
class Watched:
    """A page in the browser, and what it asked for and complained about.

    Parameters
    ----------
    tab
        playwright's page.
    requests
        Addresses, without those of the page itself and what it carries (`file:` of the page,
        `data:` and `blob:`).
    complaints
        Errors and warnings on the console, and exceptions that nobody caught.
    """

    tab: Any
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def open(self, path: Path) -> Any:
        """Open a file, and give playwright's page."""
        address = path.resolve().as_uri()
        carried = ("data:", "blob:", address)
        self.tab.on(
            "request",
            lambda request: (
                None if request.url.startswith(carried) else self.requests.append(request.url)
            ),
        )
        self.tab.on(
            "console",
            lambda message: (
                self.complaints.append(f"{message.type}: {message.text}")
                if message.type in ("error", "warning")
                else None
            ),
        )
        self.tab.on("pageerror", lambda error: self.complaints.append(f"exception: {error}"))
        self.tab.goto(address)
        return self.tab


@pytest.fixture(scope="session")
def chromium() -> Iterator[Callable[..., Any]]:
    """Give a function that starts a browser with further flags; each set of flags starts once."""
    path = os.environ.get("ATYPIA_CHROMIUM") or shutil.which("chromium")
    if path is None:
        pytest.skip("NO BROWSER: install chromium, or set ATYPIA_CHROMIUM, to run this test")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        pytest.skip("NO playwright: pip install playwright to run this test")
    started: dict[tuple[str, ...], Any] = {}
    with sync_playwright() as playwright:

        def start(*flags: str) -> Any:
            if flags not in started:
                started[flags] = playwright.chromium.launch(
                    executable_path=path, args=["--headless=new", "--no-sandbox", *OFFLINE, *flags]
                )
            return started[flags]

        yield start
        for browser in started.values():
            browser.close()


@pytest.fixture
def page(chromium: Callable[..., Any]) -> Iterator[Watched]:
    """A fresh page of a browser that draws WebGL in software."""
    tab = chromium(*SOFTWARE_WEBGL).new_page(viewport={"width": 1280, "height": 900})
    yield Watched(tab)
    tab.close()


@pytest.fixture
def page_without_webgl(chromium: Callable[..., Any]) -> Iterator[Watched]:
    """A fresh page of a browser without WebGL."""
    tab = chromium(*NO_WEBGL).new_page()
    yield Watched(tab)
    tab.close()
