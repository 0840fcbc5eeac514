"""Files of metrics: whole lines only, while they grow, and after they were replaced."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ablation.errors import DataError
from ablation.training.command.metrics_file import EpochFile, final_metrics


def test_a_line_is_read_once_and_only_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    file = EpochFile(path, {})
    assert list(file.lines()) == []  # not there yet
    path.write_text("epoch, train/loss ,AP,note\n1, 0.5 ,0.25,good\n2,0.4")
    assert list(file.lines()) == [(1, {"train/loss": 0.5, "val/AP": 0.25})]
    with path.open("a") as more:
        more.write(",0.5,\n3,0.1,0.625,")
    assert list(file.lines()) == [(2, {"train/loss": 0.4, "val/AP": 0.5})]
    assert list(file.lines()) == []
    assert list(file.lines(ended=True)) == [(3, {"train/loss": 0.1, "val/AP": 0.625})]
    assert list(file.lines(ended=True)) == []


def test_a_file_that_was_replaced_or_shortened_is_read_from_its_start(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    file = EpochFile(path, {"mAP": "val/AP"})
    path.write_text('{"epoch": 1, "mAP": 0.1}\n{"epoch": 2, "mAP": 0.2}\n')
    assert [epoch for epoch, _ in file.lines()] == [1, 2]
    path.write_text('{"epoch": 1, "mAP": 0.3}\n')
    assert list(file.lines()) == [(1, {"val/AP": 0.3})]
    other = tmp_path / "other"
    other.write_text('{"epoch": 1, "mAP": 0.4}\n{"epoch": 2, "mAP": 0.5}\n')
    other.replace(path)
    assert [line["val/AP"] for _, line in file.lines()] == [0.4, 0.5]


def test_epochs_from_0_become_epochs_from_1_and_lines_without_epoch_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    path.write_text("epoch,AP\n0,0.1\n1,0.2\nepoch,AP\n2,0.3\n")  # a second head: the trainer went on
    assert [epoch for epoch, _ in EpochFile(path, {}).lines()] == [1, 2, 3]
    path.write_text("AP\n0.1\n0.2\n")
    assert [epoch for epoch, _ in EpochFile(path, {}).lines()] == [1, 2]


def test_a_damaged_line_is_named_and_the_next_call_goes_on_behind_it(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    path.write_text(
        '{"epoch": 1, "AP": 0.1}\n{"epoch": 2, \n{"epoch": 3, "AP": 0.3}\n{"epoch": 0, "AP": 1}\n'
    )
    file = EpochFile(path, {})
    before = file.lines()
    assert next(before)[0] == 1
    with pytest.raises(DataError, match=r"m\.jsonl:2: not JSON"):
        next(before)
    after = file.lines()
    assert next(after)[0] == 3
    with pytest.raises(DataError, match=r"m\.jsonl:4: epoch: found 0 after lines that count from 1"):
        next(after)


def test_a_file_that_cannot_be_read_has_no_lines_yet_and_says_so_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "m.csv"
    path.mkdir()
    file = EpochFile(path, {})
    assert list(file.lines()) == list(file.lines()) == []
    assert caplog.text.count("cannot be read: Is a directory") == 1
    path.rmdir()
    path.write_text("epoch,AP\n1,0.5\n")
    assert list(file.lines()) == [(1, {"val/AP": 0.5})]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("m.json", "", "empty"),
        ("m.json", "{", "not JSON"),
        ("m.json", "[1]", "found [1], must be an object"),
        ("m.json", '{"note": "x"}', "has no number"),
        ("m.json", '{"AP": 31.2}', "AP: found 31.2, must lie in [0, 1]; divide it by 100"),
        ("m.csv", "epoch,AP\n1\n", "1 cells under 2 columns"),
        ("m.csv", "epoch,AP\n", "has no number"),
        ("m.json", '{"AP": 0.1, "val/AP": 0.2}', "two columns are val/AP"),
        ("m.jsonl", "\xff\xfe", "not UTF-8"),
    ],
)
def test_final_metrics_that_cannot_be_used(name: str, content: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(DataError) as error:
        final_metrics(path, {})
    assert message in str(error.value) and str(path) in str(error.value)


def test_the_last_line_is_the_final_one(tmp_path: Path) -> None:
    csv, jsonl, plain = tmp_path / "m.csv", tmp_path / "m.jsonl", tmp_path / "m.json"
    csv.write_text("epoch,mAP50(B)\n1,0.1\n2,0.2\n\n")
    jsonl.write_text(json.dumps({"epoch": 1, "mAP50(B)": 0.1}) + "\n" + json.dumps({"mAP50(B)": 0.2}) + "\n")
    plain.write_text(json.dumps({"mAP50(B)": 0.2, "name": "x"}))
    for path in (csv, jsonl, plain):
        assert final_metrics(path, {"mAP50(B)": "val/AP50"}) == {"val/AP50": 0.2}
