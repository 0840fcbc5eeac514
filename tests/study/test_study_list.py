"""The list of studies: state, verdict, next command; commands without study= name the studies."""

from __future__ import annotations

import json
import os
import shlex
from pathlib import Path

import pytest

from ablation import cli
from ablation.errors import UsageError
from ablation.records import PlannedRun
from ablation.study.plan_file import extend_plan, plan_file
from ablation.study.study_list import VERDICT_FILE, StudySummary, list_studies, require_study
from ablation.tracking.run_folder import RunFolder

COMMAND = "ablation train loss=bce seed={} arm=bce"


def study(out: Path, name: str, states: list[str]) -> Path:
    """A study with one run in each of these states; MISSING: it never started."""
    runs = [PlannedRun("bce", seed, f"{seed:064x}", COMMAND.format(seed)) for seed in range(len(states))]
    extend_plan(out, name, runs)
    for run, state in zip(runs, states, strict=True):
        if state != "MISSING":
            folder = RunFolder.of(out, name, "bce", run.seed, run.key)
            folder.write_json("run.json", {"study": name})
            folder.set_state(state)
    return plan_file(out, name).parent


def report(folder: Path, verdict: str, age_s: float = -5) -> None:
    """As `ablation report` leaves it, so many seconds older than now."""
    path = folder / "report" / VERDICT_FILE
    path.parent.mkdir()
    path.write_text(json.dumps({"verdict": verdict, "headline": f"it is {verdict}", "recommended": "focal"}))
    moment = path.stat().st_mtime - age_s
    os.utime(path, (moment, moment))


def only(out: Path) -> StudySummary:
    (summary,) = list_studies(out)
    return summary


@pytest.mark.parametrize(
    ("states", "next_command"),
    [
        (["FINISHED", "DIVERGED"], "ablation report study=s out={out}"),
        (["FINISHED", "MISSING"], COMMAND.format(1)),
        (["KILLED", "FAILED"], COMMAND.format(0)),
        (["DIVERGED"], ""),
    ],
)
def test_what_to_do_next(tmp_path: Path, states: list[str], next_command: str) -> None:
    study(tmp_path, "s", states)
    summary = only(tmp_path)
    assert summary.next == next_command.format(out=tmp_path)
    assert summary.runs == len(states) and summary.verdict == ""


def test_a_sweep_file_is_launched_as_a_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sweeps").mkdir()
    (tmp_path / "sweeps" / "s.yaml").touch()
    study(Path("runs"), "s", ["FINISHED", "FAILED"])
    assert only(Path("runs")).next == "ablation train -m sweeps=s retry=failed"


def test_a_report_gives_the_verdict_until_runs_end_after_it(tmp_path: Path) -> None:
    folder = study(tmp_path, "s", ["FINISHED", "FINISHED"])
    report(folder, "better")
    summary = only(tmp_path)
    assert (summary.verdict, summary.headline, summary.outdated) == ("better", "it is better", False)
    assert summary.next == f"ablation confirm study=s out={tmp_path} seeds=2-6"
    os.utime(folder / "report" / VERDICT_FILE, (0, 0))
    summary = only(tmp_path)
    assert summary.outdated and summary.next == f"ablation report study=s out={tmp_path}"


def test_damaged_studies_are_listed_with_the_reason(tmp_path: Path) -> None:
    study(tmp_path, "good", ["FINISHED"])
    plan_file(tmp_path, "bad").parent.mkdir()
    plan_file(tmp_path, "bad").write_text("[")
    summaries = {summary.study: summary for summary in list_studies(tmp_path)}
    assert "plan.json" in summaries["bad"].problem and summaries["good"].problem == ""


def test_names_are_those_of_the_studies_and_quoted_for_a_shell(tmp_path: Path) -> None:
    study(tmp_path, "größe 1", ["FINISHED"])
    summary = only(tmp_path)
    assert summary.study == "größe 1"
    assert shlex.split(summary.next)[:3] == ["ablation", "report", "study=größe 1"]
    with pytest.raises(UsageError, match="'größe 1'"):
        require_study("report", "", tmp_path)


@pytest.mark.parametrize("name", ["report", "status"])
def test_without_a_study_the_studies_are_named(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no study in"):
        cli.run([name, f"out={tmp_path}"])
    study(tmp_path, "a", ["FINISHED"])
    study(tmp_path, "b", ["FINISHED"])
    with pytest.raises(UsageError, match=r"study=a, study=b"):
        cli.run([name, f"out={tmp_path}"])


def test_the_command_prints_a_table_or_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study(tmp_path, "s", ["FINISHED", "MISSING"])
    assert cli.run(["studies", f"out={tmp_path}", "json=true"]) == 0
    (content,) = json.loads(capsys.readouterr().out)
    assert content["study"] == "s" and content["counts"] == {"finished": 1, "to do": 1}
    assert cli.run(["studies", f"out={tmp_path}"]) == 0
    printed = capsys.readouterr().out
    assert "1 of 2 done" in printed and COMMAND.format(1) in printed
    assert cli.run(["studies", f"out={tmp_path / 'nothing'}"]) == 0


@pytest.mark.parametrize("number", [13, 30])
def test_a_read_only_folder_is_one_line(
    number: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(arguments: list[str]) -> int:
        raise OSError(number, os.strerror(number), "/project/runs")

    monkeypatch.setitem(cli.COMMANDS, "status", refuse)
    monkeypatch.setattr("sys.argv", ["ablation", "status"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 1
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("ablation: ")]
    assert "/project/runs" in line and "out=DIR" in line and "unexpected" not in line
