"""Chromium without a network: every page is answered from disk, and what else a page asks for is refused and counted."""

import shutil
from pathlib import Path

import pytest

ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
SITE = "http://widget.test"
# After so many milliseconds something hangs; a busy machine is no fault, and speed is measured, not tested.
HANGS = 5 * 60 * 1000


# Playwright keeps an event loop running: it must be gone before other tests start one.
@pytest.fixture(scope="package")
def browser():
    from playwright.sync_api import sync_playwright

    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        pytest.fail("The browser tests need Chromium on the path; install the system's package, for example chromium.")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield chromium
        chromium.close()


@pytest.fixture(scope="session")
def pictures():
    """Folder for screenshots, kept after the tests."""
    folder = Path(__file__).parents[2] / "test-output"
    folder.mkdir(exist_ok=True)
    return folder
