"""A real browser opens the report from disk and MLflow's pages on the study: nothing is missing or broken."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.command import ROOT, TINY, ablation

pytestmark = pytest.mark.slow
sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium")
SWEEP = """\
# @package _global_
study: little
seeds: [0, 1]
arms:
  - {loss: bce}
  - {loss: focal, loss.alpha: [0.25, 0.75], loss.gamma: [1, 2]}
"""


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A finished study with its report, and the path of MLflow's page that `report` printed."""
    folder = tmp_path_factory.mktemp("browser")
    (folder / "sweeps").mkdir()
    (folder / "sweeps" / "little.yaml").write_text(SWEEP)
    ablation(folder, "train", "-m", "sweeps=little", *TINY)
    shown = ablation(folder, "report", "study=little").stdout
    found = re.search(r"MLflow: http://127.0.0.1:5000(\S+)", shown)
    assert found is not None, shown
    return folder, found[1]


@pytest.fixture(scope="module")
def browser() -> Iterator[sync_api.Browser]:
    if CHROMIUM is None:
        pytest.skip("no chromium on this machine (Debian: apt-get install chromium)")
    with sync_api.sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield running
        running.close()


class Watched:
    """A page, and everything that it complained about or asked for."""

    def __init__(self, browser: sync_api.Browser, width: int, scheme: str) -> None:
        self.page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        self.errors: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", self._console)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("requestfailed", lambda request: self.errors.append(f"failed: {request.url}"))
        self.page.on("request", self._request)

    def _console(self, message: sync_api.ConsoleMessage) -> None:
        if message.type == "error":
            self.errors.append(message.text)

    def _request(self, request: sync_api.Request) -> None:
        if not request.url.startswith("data:"):
            self.requests.append(request.url)


@pytest.mark.parametrize("width", [1280, 420])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_report_is_whole_and_asks_for_nothing(
    study: tuple[Path, str], browser: sync_api.Browser, width: int, scheme: str
) -> None:
    path = study[0] / "runs" / "little" / "report" / "report.html"
    alone = study[0] / "sent" / "by mail.html"  # the page needs none of the files beside it
    alone.parent.mkdir(exist_ok=True)
    shutil.copy(path, alone)
    watched = Watched(browser, width, scheme)
    page = watched.page
    page.goto(alone.as_uri(), wait_until="load")
    assert watched.errors == [] and watched.requests == [alone.as_uri()]
    broken = page.evaluate("[...document.images].filter(i => !i.complete || !i.naturalWidth).map(i => i.alt)")
    assert broken == [] and page.evaluate("document.images.length") >= 4
    assert page.evaluate("document.documentElement.scrollWidth") <= width, "the page scrolls sideways"
    for name in ("Answer", "Arms", "Figures", "Examples", "Data", "Runs", "What this study cannot conclude"):
        assert page.get_by_role("heading", name=name, exact=True).is_visible()
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert ground == {"light": "rgb(255, 255, 255)", "dark": "rgb(22, 24, 28)"}[scheme]
    for link in page.locator("nav a").all():
        assert page.locator(str(link.get_attribute("href"))).count() == 1
    page.screenshot(path=study[0] / f"report-{width}-{scheme}.png", full_page=True)
    page.close()


def test_the_report_prints_on_white_without_its_contents(
    study: tuple[Path, str], browser: sync_api.Browser
) -> None:
    watched = Watched(browser, 1280, "dark")
    page = watched.page
    page.goto((study[0] / "runs" / "little" / "report" / "report.html").as_uri(), wait_until="load")
    page.emulate_media(media="print")
    assert not page.locator("nav").is_visible()
    assert page.evaluate("getComputedStyle(document.body).color") == "rgb(0, 0, 0)"
    page.pdf(path=study[0] / "report.pdf", prefer_css_page_size=True)
    assert (study[0] / "report.pdf").read_bytes().startswith(b"%PDF") and watched.errors == []
    page.close()


@pytest.fixture
def ui(study: tuple[Path, str]) -> Iterator[str]:
    """The real `ablation ui` on a free port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "ablation.cli", "ui", f"port={port}"], cwd=study[0], start_new_session=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    address = f"http://127.0.0.1:{port}"
    try:
        _wait_for(address, process)
        yield address
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(20)


def _wait_for(address: str, process: subprocess.Popen[bytes], seconds: float = 90) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        assert process.poll() is None, f"`ablation ui` ended with exit code {process.returncode}"
        try:
            with urllib.request.urlopen(f"{address}/health", timeout=2):
                return
        except OSError:
            time.sleep(0.5)
    raise AssertionError(f"{address} did not answer in {seconds} s")


def test_mlflows_page_opens_on_the_studys_charts_and_verdict(
    study: tuple[Path, str], browser: sync_api.Browser, ui: str
) -> None:
    watched = Watched(browser, 1680, "light")
    page = watched.page
    page.goto(ui + study[1], wait_until="load", timeout=90_000)
    page.get_by_text("You're viewing a shared view").first.wait_for(timeout=90_000)
    page.get_by_text("matching runs").first.wait_for(timeout=30_000)
    page.locator(".js-plotly-plot").nth(1).wait_for(timeout=30_000)
    assert page.get_by_text("not enough to tell").count() >= 1  # the verdict, as the experiment's description
    page.screenshot(path=study[0] / "mlflow.png", full_page=True)
    outside = [url for url in watched.requests if not url.startswith((ui, "blob:"))]
    assert outside == [], "MLflow's page asked for something outside this machine"
    # Requests that the page itself cancels on its way to another address are no faults.
    assert [text for text in watched.errors if not text.startswith(("failed: ", "Failed to load"))] == []
    page.close()
