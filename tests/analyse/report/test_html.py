"""The page: complete without a network, and nothing that came from data can become markup."""

from __future__ import annotations

import dataclasses
import json
import shlex
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from helpers.synthetic import bce, focal, run, study, with_state

from ablation.analyse import figures
from ablation.analyse.detections.run_files import RunArtifacts
from ablation.analyse.detections.stored import lost_detections
from ablation.analyse.detections.thresholds import BestThreshold
from ablation.analyse.report import html
from ablation.analyse.report import recommendation as use
from ablation.analyse.report.data_section import data_section
from ablation.analyse.report.report import ReportFiles, write_report
from ablation.analyse.report.settings import ReportSettings
from ablation.analyse.view import study_view
from ablation.data.shapes import Shapes
from ablation.records import Declaration, RunRecord, StudyRecord
from ablation.study.app import composed
from ablation.training.evaluate import coco_ground_truth

HOSTILE = "<script>alert(\"1\")</script> & 'quoted' {{ 7 * 7 }} \u202e\u00fc\u6f22\U0001f600 " + "long" * 100
SHAPES = Shapes(train_images=4, val_images=6, size_px=32, size_min=0.25, cache="none")


class Parsed(HTMLParser):
    """Elements with their attributes, and the visible text of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.code: list[str] = []
        self._in_code = False
        self._hidden = 0
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._in_code |= tag == "code"
        self._hidden += tag in ("style", "script")

    def handle_endtag(self, tag: str) -> None:
        self._hidden -= tag in ("style", "script")
        self._in_code &= tag != "code"

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self.texts.append(data)
            if self._in_code:
                self.code.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())

    def of(self, *names: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.elements if tag in names]


def truth() -> dict[str, Any]:
    """Ground truth of the generated images."""
    return coco_ground_truth(SHAPES.open().val, SHAPES.classes)


def left_by(record: StudyRecord, folder: Path, score: dict[str, float]) -> RunArtifacts:
    """Every object found exactly, with the arm's own score; focal arms miss the first object."""
    content = truth()
    about = {
        "fingerprint": "f" * 64,
        "data": {"name": "shapes", "_target_": "ablation.data.shapes.Shapes", **dataclasses.asdict(SHAPES)},
        "data_profile": {"classes": list(SHAPES.classes), "train_images": 4, "val_images": 6,
                         "train_boxes": 12, "val_boxes": 18, "faults": 1},
    }  # fmt: skip
    runs = {item.run_id: item for item in record.runs}

    def found(of: RunRecord) -> list[dict[str, Any]]:
        kept = content["annotations"][0 if of.arm == "bce" else 1 :]
        right = [{key: item[key] for key in ("image_id", "category_id", "bbox")} for item in kept]
        wrong = [{**item, "bbox": [0.0, 0.0, 1.0, 1.0], "score": 0.05} for item in right]
        return [{**item, "score": score[of.arm]} for item in right] + wrong

    def fetch(run_id: str, name: str) -> Path | None:
        made = {
            "run.json": lambda: about,
            "detections/ground_truth.json": lambda: content,
            "detections/val.json": lambda: found(runs[run_id]),
            "faults.json": lambda: [{"file": "a.xml", "what": HOSTILE, "action": "box left out"}],
        }
        if name not in made:
            return None
        path = folder / run_id / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(made[name]()))
        return path

    return RunArtifacts(record, fetch)


SCORES = {"bce": 0.7, "focal-alpha=0.5-gamma=2": 0.4}


def planted() -> StudyRecord:
    """Focal better by 0.05 on six seeds, margin 0.01 declared before."""
    record = study([(bce(), 0.40), (focal(0.5, 2), 0.45)], range(6), sd_noise=0.004)
    return dataclasses.replace(record, declared=(Declaration("val/AP", 0.01, 0.95),))


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> ReportFiles:
    """A report with figures, examples and a check."""
    folder = tmp_path_factory.mktemp("report")
    record = planted()
    artifacts = left_by(record, folder / "files", SCORES)
    # Three figures of all: drawing each in three formats takes half a second.
    few = [one for one in figures.discover() if one.name in ("pr_curves", "training_curves", "gamma_curves")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(figures, "discover", lambda: few)
        return write_report(
            record,
            folder / "report",
            ReportSettings(link=lambda run: f"http://127.0.0.1:5000/#/{run}"),
            artifacts,
        )


@pytest.fixture(scope="module")
def page(written: ReportFiles) -> Parsed:
    return Parsed(written.page.read_text(encoding="utf-8"))


@pytest.fixture
def no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "discover", list)


def test_the_page_asks_for_nothing_and_runs_nothing(page: Parsed, written: ReportFiles) -> None:
    assert not page.of("script", "iframe", "object", "embed", "form", "base")
    assert not [a for a in page.of(*{tag for tag, _ in page.elements}) if any(k.startswith("on") for k in a)]
    for attributes in page.of("img", "link", "source", "image", "use"):
        for key in ("src", "href", "srcset"):
            assert (attributes.get(key) or "data:").startswith("data:"), attributes
    content = written.page.read_text(encoding="utf-8")
    style = content.split("<style>")[1].split("</style>")[0]
    assert "url(" not in style and "@import" not in style and "&#" not in style
    [policy] = [a["content"] for a in page.of("meta") if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def test_every_link_inside_has_its_target_and_every_image_its_words(page: Parsed) -> None:
    ids = [a["id"] for _, a in page.elements if "id" in a]
    assert len(ids) == len(set(ids))
    inside = [a["href"] for a in page.of("a") if str(a["href"]).startswith("#")]
    assert len(inside) >= 9 and {str(link)[1:] for link in inside} <= set(ids)
    assert all(a["alt"] and a["width"] and a["height"] for a in page.of("img"))


def test_the_order_is_the_answer_first_and_the_doubts_last(page: Parsed, written: ReportFiles) -> None:
    ids = [a["id"] for tag, a in page.elements if tag == "section"]
    assert ids == ["answer", "use", "arms", "figures", "examples", "data", "held", "runs", "limits"]
    shown = {a["id"] for a in page.of("figure")}
    assert shown == {f"figure-{name}" for name in written.figures} | {"figure-example-1"}
    assert all(written.verdict.limitations) and all(text in page.text for text in written.verdict.limitations)


def test_the_planted_answer_stands_there_with_its_number_and_what_to_do(
    page: Parsed, written: ReportFiles
) -> None:
    one = written.verdict.headline.comparison
    assert one.verdict == "better" and written.verdict.recommended == "focal-alpha=0.5-gamma=2"
    assert f"{one.difference:+.3f} [{one.low:+.3f}, {one.high:+.3f}]" in page.text
    assert any("better" in str(a.get("class")) for a in page.of("div"))
    # All scores of the arm are 0.4 and all its false detections 0.05: 0.06 to 0.40 are equally good.
    assert "loss=focal loss.alpha=0.5 loss.gamma=2 score=0.23" in page.text
    assert page.text.count("marked") == 0 and [a for a in page.of("tr") if a.get("class") == "marked"]


def test_every_run_stands_there_with_key_link_and_command(page: Parsed) -> None:
    record = planted()
    links = [a["href"] for a in page.of("a") if str(a["href"]).startswith("http")]
    assert links == [f"http://127.0.0.1:5000/#/{one.run_id}" for one in record.runs]
    for plan in record.planned:
        assert plan.key[:8] in page.text and plan.command in page.text


def test_examples_show_the_one_object_that_only_one_arm_found(page: Parsed, written: ReportFiles) -> None:
    assert [path.name for path in written.examples] == ["example_1.png", "example_1.pdf", "example_1.svg"]
    first = [item for item in truth()["annotations"] if item["image_id"] == 1]
    assert (
        f"{len(first)} objects, {len(first)} and {len(first) - 1} found at IoU 0.5, 0 and 0 false"
        in page.text
    )
    assert "not typical" in page.text


def test_a_name_from_data_stays_text(tmp_path: Path, no_figures: None) -> None:
    arm = (HOSTILE, {"loss.name": "focal", "loss.gamma": "1", "loss.word": HOSTILE})
    record = StudyRecord(
        HOSTILE, [run(bce(), 0, 0.4), run(arm, 0, 0.5), run(arm, 1, 0.5, state="FAILED", reason=HOSTILE)],
        description=HOSTILE,
    )  # fmt: skip
    artifacts = left_by(record, tmp_path / "files", {"bce": 0.7, HOSTILE: 0.4})
    report = write_report(
        record, tmp_path / "report", ReportSettings(link=lambda run_id: f"http://h/{HOSTILE}"), artifacts
    )
    content = report.page.read_text(encoding="utf-8")
    page = Parsed(content)
    assert "<script" not in content and not page.of("script")
    assert page.text.count(" ".join(HOSTILE.split())) >= 5
    for name in ("arms.md", "runs.md"):
        text = (report.folder / name).read_text(encoding="utf-8")
        assert "<script" not in text.replace("\\<", "")


def test_an_incomplete_study_gets_its_page_and_the_reason_instead_of_a_verdict(
    tmp_path: Path, no_figures: None
) -> None:
    record = with_state(planted(), "bce", 3, "MISSING")
    report = write_report(record, tmp_path / "whole")
    page = Parsed(report.page.read_text(encoding="utf-8"))
    assert "1 of 12 runs has no result (1 missing)" in page.text and "partial=true" in page.text
    assert [a for a in page.of("div") if a.get("class") == "answer none"]
    partial = write_report(record, tmp_path / "part", ReportSettings(partial=True))
    assert partial.verdict.headline.comparison.verdict == "better"
    assert "INCOMPLETE" in Parsed(partial.page.read_text(encoding="utf-8")).text


def test_without_the_runs_files_the_page_says_what_is_missing(tmp_path: Path, no_figures: None) -> None:
    page = Parsed(write_report(planted(), tmp_path).page.read_text(encoding="utf-8"))
    assert "No example images" in page.text and not page.of("figure")
    assert "folders of the runs were not found" in page.text
    assert any("loss=focal" in text for text in page.code) and not any("score=" in text for text in page.code)


def test_settings_to_paste_compose_to_the_losses_that_they_came_from() -> None:
    arms = [(bce(), 0.4), (bce(4.0), 0.4), (focal(None, 0.5), 0.4), (focal(0.25, 2), 0.4)]
    gains = {"bce": "1.0", "bce-pos_weight=4": "2.5"}
    record = study(arms, [0])
    runs = [
        dataclasses.replace(one, params=one.params | {"criterion.confidence_gain": gains.get(one.arm, "1.0")})
        for one in record.runs
    ]
    view = study_view(dataclasses.replace(record, runs=runs))
    for arm, params in (one for one, _ in arms):
        lines = use.overrides(view, arm)
        config = composed(shlex.split(" ".join(lines)))
        assert config.loss._target_.rsplit(".", 2)[1] == params["loss.name"]
        for key, text in params.items():
            if key != "loss.name":
                value = config.loss[key.removeprefix("loss.")]
                assert (None if text == "None" else float(text)) == value, (arm, key)
        assert config.criterion.confidence_gain == float(gains.get(arm, "1.0"))


def test_an_arms_threshold_is_the_middle_of_its_seeds(tmp_path: Path) -> None:
    record = planted()
    artifacts = left_by(record, tmp_path, SCORES)
    view = study_view(record)
    best = use.arm_threshold(view, "bce", artifacts)
    # Between the false detections (0.05) and the true ones (0.7) nothing changes: 0.06 to 0.70.
    assert best == BestThreshold(score=0.38, f1=1.0, low=0.38, high=0.38, curves=6)
    assert use.arm_threshold(view, "bce", RunArtifacts(record)) is None


def test_a_check_of_other_data_is_not_shown(tmp_path: Path) -> None:
    record = planted()
    artifacts, view = left_by(record, tmp_path / "files", SCORES), study_view(record)
    split = {"boxes_per_class": {"circle": 30, "square": 10}}
    content = {"fingerprint": "0" * 64, "size_px": 32, "classes": ["circle", "square"],
               "splits": {"train": split, "val": split}, "cells": {}}  # fmt: skip
    path = tmp_path / "check" / "shapes" / "check.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(content))
    titles = [part.title for part in data_section(view, artifacts, tmp_path / "check")]
    assert "Classes" not in titles and "Faults" in titles
    path.write_text(json.dumps(content | {"fingerprint": "f" * 64}))
    parts = {part.title: part for part in data_section(view, artifacts, tmp_path / "check")}
    assert parts["Classes"].table is not None
    assert parts["Classes"].table.rows == (("circle", "30", "75.0%", "30"), ("square", "10", "25.0%", "10"))


def test_a_dense_figure_goes_in_as_png_a_small_one_as_svg(tmp_path: Path) -> None:
    png, svg = tmp_path / "f.png", tmp_path / "f.svg"
    png.write_bytes(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + (1400).to_bytes(4, "big") + (700).to_bytes(4, "big"))
    svg.write_text('<svg xmlns="http://www.w3.org/2000/svg"/>')
    small = html.picture("f", "F", "c", [png, svg])
    assert small.source.startswith("data:image/svg+xml;base64,") and (small.width_px, small.height_px) == (
        756,
        378,
    )
    assert html.picture("f", "F", "c", [png, svg], dense=True).source.startswith("data:image/png")
    svg.write_text("<svg>" + " " * html.LARGEST_SVG + "</svg>")
    assert html.picture("f", "F", "c", [png, svg]).source.startswith("data:image/png")
    svg.write_text("<svg>\x01</svg>")  # XML forbids this character, so browsers refuse the image
    assert html.picture("f", "F", "c", [png, svg]).source.startswith("data:image/png")


def test_what_was_not_found_is_named_and_forbids_the_verdict_that_needs_it(
    tmp_path: Path, same_picture: None
) -> None:
    record = dataclasses.replace(planted(), missing=("plan.json is not here",))
    report = write_report(record, tmp_path / "refused")
    page = Parsed(report.page.read_text(encoding="utf-8"))
    assert report.verdict.recommended is None and "plan.json is not here" in report.verdict.refused
    assert page.text.count("plan.json is not here") >= 2 and "partial=true" in page.text
    partial = write_report(record, tmp_path / "partial", ReportSettings(partial=True))
    assert partial.verdict.recommended is not None
    assert any("plan.json is not here" in line for line in partial.verdict.limitations)


def test_a_run_that_lost_its_detections_is_named(tmp_path: Path, same_picture: None) -> None:
    record = planted()
    whole = left_by(record, tmp_path / "files", SCORES)
    lost = record.runs[3]
    artifacts = RunArtifacts(
        record,
        lambda run, name: (
            None if (run, name) == (lost.run_id, "detections/val.json") else whole.path(name, run)
        ),
    )
    [line] = lost_detections(record, artifacts)
    assert lost.arm in line and f"seed {lost.seed}" in line and lost.key[:8] in line
    assert lost_detections(record, whole) == [] and lost_detections(record, RunArtifacts(record)) == []
    named = dataclasses.replace(record, missing=(f"{lost.arm} seed {lost.seed} ({lost.key[:8]}) is gone",))
    assert lost_detections(named, artifacts) == []
    assert line in write_report(record, tmp_path / "report", artifacts=artifacts).verdict.refused


def test_a_page_of_runs_that_read_the_test_split_says_so(tmp_path: Path, same_picture: None) -> None:
    record = planted()
    runs = [dataclasses.replace(item, metrics=item.metrics | {"test/AP": 0.3}) for item in record.runs]
    artifacts = left_by(record, tmp_path / "files", SCORES)
    unread = Parsed(write_report(record, tmp_path / "val", artifacts=artifacts).page.read_text("utf-8")).text
    assert "none read the test split" in unread and "test split has not been read" in unread
    settings = ReportSettings("test/AP")
    report = write_report(dataclasses.replace(record, runs=runs), tmp_path / "test", settings, artifacts)
    text = Parsed(report.page.read_text("utf-8")).text
    assert "none read the test split" not in text and "has not been read" not in text
    assert "12 of them were evaluated on the test split" in text
