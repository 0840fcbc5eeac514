"""Pictures of a study's report and of MLflow's page on it, for README and docs.

    python docs/make_pictures.py FOLDER [STUDY]

FOLDER holds `runs/` and `mlflow.db` of a finished study with its report written; STUDY: `demo` by default.
Needs the extra `browser` and Debian's chromium. Writes docs/img/report.png and docs/img/mlflow.png.
"""

from __future__ import annotations

import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
from playwright.sync_api import Browser, sync_playwright

IMAGES = Path(__file__).resolve().parent / "img"
LARGEST_BYTES = 150_000


def main(folder: Path, study: str) -> None:
    IMAGES.mkdir(exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        report = (folder / "runs" / study / "report" / "report.html").resolve()
        save(report_picture(browser, report.as_uri()), "report.png")
        with mlflow_ui(folder) as address:
            page = f"{address}/#/experiments/{experiment_id(folder, study)}/runs"
            charts = "viewStateShareKey=study&compareRunsMode=CHART"
            save(mlflow_picture(browser, f"{page}?{charts}"), "mlflow.png")
        browser.close()


def report_picture(browser: Browser, address: str) -> bytes:
    """The report's answer and its table of arms; the settings between the two are left out."""
    page = browser.new_page(viewport={"width": 1100, "height": 1000}, color_scheme="light")
    page.goto(address, wait_until="load")
    page.add_style_tag(content="#use {display: none}")
    page.wait_for_timeout(1000)
    screenshot = page.screenshot()
    page.close()
    return screenshot


def mlflow_picture(browser: Browser, address: str) -> bytes:
    """MLflow's charts of the study, as `ablation report` saved them; its assistant's panel is closed."""
    page = browser.new_page(viewport={"width": 1400, "height": 860}, color_scheme="light")
    page.goto(address, wait_until="load")
    page.wait_for_timeout(12_000)
    for panel in page.get_by_role("button", name="Close").all():
        panel.click()
    page.wait_for_timeout(6_000)
    screenshot = page.screenshot()
    page.close()
    return screenshot


def save(png: bytes, name: str) -> None:
    """Write the PNG with as many of its colours as fit into the limit."""
    pixels = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)
    for step in (1, 8, 16, 32):
        rounded = np.minimum((pixels.astype(np.int32) + step // 2) // step * step, 255).astype(np.uint8)
        coded = cv2.imencode(".png", rounded, [cv2.IMWRITE_PNG_COMPRESSION, 9])[1].tobytes()
        if len(coded) <= LARGEST_BYTES:
            break
    (IMAGES / name).write_bytes(coded)
    print(f"{IMAGES / name}: {len(coded):,} bytes")


def experiment_id(folder: Path, study: str) -> int:
    with sqlite3.connect(folder / "mlflow.db") as database:
        row = database.execute("select experiment_id from experiments where name = ?", (study,)).fetchone()
    if row is None:
        sys.exit(f"{folder}/mlflow.db has no experiment {study}")
    return int(row[0])


@contextmanager
def mlflow_ui(folder: Path) -> Iterator[str]:
    """MLflow's UI on the folder's store, on a free port of this machine."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    environment = os.environ | {"PYTHONPATH": str(IMAGES.parent.parent)}
    command = [sys.executable, "-m", "ablation.cli", "ui", f"port={port}"]
    server = subprocess.Popen(command, cwd=folder, env=environment, start_new_session=True)
    try:
        for _ in range(120):
            try:
                urllib.request.urlopen(address, timeout=2).close()
                break
            except OSError:
                time.sleep(0.5)
        else:
            sys.exit(f"MLflow's UI did not answer on {address} within a minute")
        yield address
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(timeout=20)


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    main(Path(sys.argv[1]), sys.argv[2] if len(sys.argv) == 3 else "demo")
