"""notify.command: told of the end of a study, by recipes of the documentation; it never fails a study."""

from __future__ import annotations

import json
import logging
import re
import shutil
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from helpers.command import ROOT, TINY, ablation

from ablation.config import RunConfig
from ablation.config.schema import NotifyConfig
from ablation.errors import AblationError, UsageError
from ablation.study.notify import Outcome, notified, notify


def config(folder: Path, *words: str, timeout_s: float = 20) -> RunConfig:
    return RunConfig(study="s", out=str(folder), notify=NotifyConfig(list(words), timeout_s))


def script(folder: Path, text: str) -> str:
    path = folder / "notify.sh"
    path.write_text(text)
    path.chmod(0o755)
    return str(path)


def recipe(which: int) -> str:
    """The script of the documentation: 0 is the webhook, 1 the mail."""
    page = (ROOT / "docs" / "launchers.md").read_text()
    return re.findall(r"```\n(#!/bin/sh\n.*?)```", page, re.DOTALL)[which]


def test_a_study_tells_of_its_end_and_keeps_the_command_to_itself(tmp_path: Path) -> None:
    words = script(tmp_path, '#!/bin/sh\ncat > told.json; printf %s "$1" > line.txt; exit 3\n')
    made = ablation(tmp_path, "train", "-m", *TINY, "train.epochs=1", "study=s", "seeds=[0]",
                    "arms=[{loss: bce}]", f"notify.command=[{words},'{{summary}}']")  # fmt: skip
    told = json.loads((tmp_path / "told.json").read_text())
    assert (told["event"], told["command"], told["study"]) == ("ended", "train", "s")
    assert told["runs"] == {"FINISHED": 1} and told["folder"] == str(tmp_path / "runs")
    assert (tmp_path / "line.txt").read_text() == told["summary"] == "train s: ended: 1 FINISHED"
    assert "notify.sh ended with code 3; the study is not affected" in made.stderr
    records = [*(tmp_path / "runs").rglob("*.yaml"), *(tmp_path / "runs").rglob("*.json")]
    assert records and not any("notify" in path.read_text() for path in records)


def test_failures_and_spent_budgets_are_told_apart(tmp_path: Path) -> None:
    words = script(tmp_path, f"#!/bin/sh\ncat >> {tmp_path}/told.jsonl; echo >> {tmp_path}/told.jsonl\n")
    with notified("settle") as outcome:
        outcome.config = config(tmp_path, words)
        outcome.attention = "budget_runs=4: 4 are spent"
    with pytest.raises(AblationError, match="bang"), notified("train") as outcome:
        outcome.config = config(tmp_path, words)
        raise AblationError("bang")
    with pytest.raises(KeyboardInterrupt), notified("train") as outcome:
        outcome.config = config(tmp_path, words)
        raise KeyboardInterrupt
    with pytest.raises(UsageError), notified("train"):
        raise UsageError("nothing was launched")
    told = [json.loads(line) for line in (tmp_path / "told.jsonl").read_text().splitlines()]
    assert [row["event"] for row in told] == ["attention", "failed"]
    assert told[0]["text"] == "settle s: attention: budget_runs=4: 4 are spent"
    assert told[1]["text"] == "train s: failed: bang"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["/no/such/program"], "No such file"),
        (["sh", "-c", "echo no route >&2; exit 7"], "sh ended with code 7: no route"),
        (["sh", "-c", "sleep 60"], "sh did not end within 1 second and was killed"),
    ],
)
def test_a_command_that_fails_or_hangs_is_one_warning(
    tmp_path: Path, words: list[str], says: str, caplog: pytest.LogCaptureFixture
) -> None:
    started = time.monotonic()
    with caplog.at_level(logging.WARNING):
        notify("train", config(tmp_path, *words, timeout_s=1), Outcome(), "")
    (record,) = caplog.records
    assert says in record.getMessage() and "\n" not in record.getMessage()
    assert time.monotonic() - started < 10


def test_no_password_reaches_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "hunter2")
    words = script(tmp_path, f"#!/bin/sh\n{{ env; cat; }} > {tmp_path}/all.txt\n")
    notify("train", config(tmp_path, words), Outcome(), "")
    text = (tmp_path / "all.txt").read_text()
    assert "ABLATION_SUMMARY=train s: ended" in text and "hunter2" not in text


@pytest.mark.parametrize("command", [[], [""]])
def test_an_empty_command_is_refused(command: list[str]) -> None:
    with pytest.raises(ValueError, match="must be a list of words that begins with a program, or null"):
        NotifyConfig(command)


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_the_recipe_for_a_webhook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bodies: list[Any] = []

    class Webhook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Webhook)
    thread = threading.Thread(target=server.handle_request, daemon=True)
    thread.start()
    monkeypatch.setenv("WEBHOOK", f"http://127.0.0.1:{server.server_port}/")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    notify("train", config(tmp_path, script(tmp_path, recipe(0))), Outcome(), "")
    thread.join(20)
    server.server_close()
    assert bodies[0]["text"].startswith("train s: ended") and bodies[0]["event"] == "ended"


def test_the_recipe_for_mail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sendmail = tmp_path / "sendmail"
    sendmail.write_text(f'#!/bin/sh\n[ "$1" = -t ] && cat > {tmp_path}/mail.txt\n')
    sendmail.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setenv("MAIL_TO", "me@example.org")
    notify("train", config(tmp_path, script(tmp_path, recipe(1))), Outcome(), "bang")
    head, _, body = (tmp_path / "mail.txt").read_text().partition("\n\n")
    assert head.splitlines() == ["To: me@example.org", "Subject: train s: failed: bang"]
    assert json.loads(body)["event"] == "failed"
