"""A run's network in the hands of others: found, rebuilt, drawn with, written and read back."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.command import SMALL, ablation, error_line, run_folders
from helpers.darknet_cfg_reader import layers as layers_of_cfg
from helpers.darknet_cfg_reader import numbers as numbers_of_layers

from ablation.cli import run as command
from ablation.commands.export import check_outputs, export
from ablation.commands.predict import predict
from ablation.config import typed
from ablation.data.decode import read_image
from ablation.data.shapes import Shapes
from ablation.data.visualise import batch_picture, colour_of, draw_boxes, write_png
from ablation.errors import AblationError, StoreError, UsageError
from ablation.model.weights import load_weights
from ablation.study.app import composed
from ablation.tracking.run_folder import RunFolder
from ablation.tracking.store import Store
from ablation.tracking.study_record import find_folders
from ablation.training.trained_run import TrainedRun, find_run, load_run


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The working folder of one finished run, weights away from where they started."""
    folder = tmp_path_factory.mktemp("trained")
    ablation(folder, "train", *SMALL, "train.epochs=3", "optim=adamw", "optim.lr=0.01", "loss=quality_focal")
    return folder


@pytest.fixture(scope="module")
def run(trained: Path) -> TrainedRun:
    return load_run(RunFolder(run_folders(trained)[0]))


@pytest.fixture(scope="module")
def val_images(run: TrainedRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The images of the run's val split as files."""
    folder = tmp_path_factory.mktemp("val")
    split = run.config.data.open().val
    for index, example in enumerate(split.examples):
        write_png(folder / f"{index:03d}-{example.name}.png", split.read(index))
    return folder


def test_a_rebuilt_run_is_what_was_trained(trained: Path, run: TrainedRun) -> None:
    saved = torch.load(run.folder.file("weights.pt"), weights_only=True)
    assert run.classes == ("circle", "square", "triangle")
    assert not run.network.training
    for name, value in run.network.state_dict().items():
        assert torch.equal(value, saved["model"][name]), name
    fresh = run.config.model.build(3, run.config.train.size_px, run.config.seed)
    assert not all(
        torch.equal(a, b) for a, b in zip(fresh.parameters(), run.network.parameters(), strict=True)
    )


def test_a_run_is_found_by_folder_and_by_the_beginning_of_its_key_or_mlflow_id(
    trained: Path, run: TrainedRun
) -> None:
    store = Store.of(f"sqlite:///{trained / 'mlflow.db'}", None)
    key = run.folder.read_json("run.json")["key"]
    path = run.folder.path.resolve()
    assert find_folders(store, "") == [path]
    for wanted in (str(path), key, key[:6]):
        assert find_run(wanted, store).path.resolve() == path
    with pytest.raises(UsageError, match="no run's key or MLflow id begins so"):
        find_run("nothing-begins-so", store)
    with pytest.raises(UsageError, match=r"no config\.yaml there"):
        find_run(str(trained), store)
    # Without a store the folders themselves are looked through.
    assert find_folders(Store.of(f"sqlite:///{trained / 'absent.db'}", None), key[:6]) == [path]
    assert not (trained / "absent.db").exists()


def test_the_prefix_of_two_runs_is_refused(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "ablation.training.trained_run.find_folders", lambda store, prefix: [Path("a"), Path("b")]
    )
    with pytest.raises(UsageError, match=r"run=4f: 2 runs begin so \(a, b\)"):
        find_run("4f", Store.of(None, None))


@pytest.mark.parametrize("format", ["darknet", "pth"])
def test_an_exported_network_read_back_computes_the_same(
    run: TrainedRun, tmp_path: Path, capsys: pytest.CaptureFixture[str], format: str
) -> None:
    file = tmp_path / "network.bin"
    command(["export", f"run={run.folder.path}", f"format={format}", f"to={file}"])
    assert f"({file.stat().st_size:,} bytes)" in capsys.readouterr().out
    again = run.config.model.build(3, run.config.train.size_px, seed=run.config.seed + 1)
    report = load_weights(again, file, load_heads=True)
    assert report.left == () and report.refused == {}
    images = torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for ours, theirs in zip(run.network(images), again.eval()(images), strict=True):
            assert torch.equal(ours, theirs)
    about = json.loads((tmp_path / "network.bin.json").read_text())
    assert about["classes"] == ["circle", "square", "triangle"]
    assert [output["stride"] for output in about["outputs"]] == [32, 16, 8]
    # The last anchor, 459 x 401 at 416 px, scaled to 64 px.
    assert about["outputs"][0]["anchors_px"][-1] == pytest.approx([459 * 64 / 416, 401 * 64 / 416])


def test_the_default_place_of_an_export_is_the_runs_folder(run: TrainedRun) -> None:
    path = export(run, "darknet", None)
    assert path == run.folder.file("network.weights") and path.stat().st_size > 0
    layers = layers_of_cfg(run.folder.file("network.cfg").read_text())
    assert path.stat().st_size == 20 + 4 * numbers_of_layers(layers)


def test_a_missing_extra_is_one_clear_line(
    run: TrainedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(UsageError, match=r"^format=onnx: needs the package onnx: pip install '.*\[onnx\]'$"):
        export(run, "onnx", tmp_path / "network.onnx")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["yolov4_small", "yolov4_tiny_small"])
def test_onnx_computes_the_same(
    run: TrainedRun, tmp_path: Path, name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """Export compares one image with ONNX Runtime by itself; here other images and batches of other sizes."""
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package, reason=f"{package} is not installed: pip install '.[onnx]'")
    import onnxruntime

    shallow = ["model.depth=0.1"] if name == "yolov4_small" else []  # the export takes time by layers
    config = typed(composed([f"model={name}", "model.width=0.0625", *shallow, "train.size_px=64"]))
    network = config.model.build(3, 64, 3).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for key, value in network.state_dict().items():  # none of them where it starts
            if key.endswith(("running_var", "bn.weight")):
                value.uniform_(0.5, 1.5, generator=generator)
            elif value.ndim == 1:
                value.uniform_(-0.2, 0.2, generator=generator)
    path = export(TrainedRun(run.folder, config, run.classes, network), "onnx", tmp_path / "network.onnx")
    said = capfd.readouterr()
    assert said.out + said.err == ""
    assert [p.name for p in sorted(tmp_path.iterdir())] == ["network.onnx", "network.onnx.json"]
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    strides = network.layout.strides
    assert [output.name for output in session.get_outputs()] == [f"stride_{stride}" for stride in strides]
    for batch in (1, 3):
        images = torch.rand(batch, 3, 64, 64, generator=generator)
        outputs = session.run(None, {"images": images.numpy()})
        assert [output.shape[0] for output in outputs] == [batch] * len(strides)
        check_outputs(network, images, outputs)


def test_an_export_that_computes_something_else_is_noticed(run: TrainedRun) -> None:
    images = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        outputs = [output.clone() for output in run.network(images)]
    check_outputs(run.network, images, [output.numpy() for output in outputs])
    outputs[1][0, 0, 0, 0] += 1e-3 * outputs[1].std()
    with pytest.raises(AblationError, match=r"at stride 16 it differs by 0\.001 standard deviations"):
        check_outputs(run.network, images, [output.numpy() for output in outputs])
    outputs[1][0, 0, 0, 0] = float("nan")
    with pytest.raises(AblationError, match="at stride 16"):
        check_outputs(run.network, images, [output.numpy() for output in outputs])


def test_predictions_on_the_val_images_are_the_runs_own_detections(
    run: TrainedRun, val_images: Path, tmp_path: Path
) -> None:
    """The same images through files, letterbox and network again: what the last evaluation kept."""
    threshold = run.config.train.score_threshold
    found = predict(run, val_images, tmp_path / "out", threshold)
    kept = json.loads(run.folder.file("detections/val.json").read_text())
    assert found.failed == [] and found.images == 8
    assert len(found.results) == len(kept) > 0
    for ours, theirs in zip(found.results, kept, strict=True):
        assert (ours["image_id"], ours["category_id"]) == (theirs["image_id"], theirs["category_id"])
        assert ours["score"] == pytest.approx(theirs["score"], rel=1e-3)
        assert ours["bbox"] == pytest.approx(theirs["bbox"], abs=1e-2)
        assert ours["category_name"] == run.classes[ours["category_id"] - 1]
    assert json.loads((tmp_path / "out" / "detections.json").read_text()) == found.results


def test_the_command_draws_every_image_under_its_own_name(
    trained: Path, run: TrainedRun, val_images: Path, tmp_path: Path
) -> None:
    images, out = tmp_path / "images", tmp_path / "drawn"
    shutil.copytree(val_images, images)
    (images / "notes.txt").write_text("no image")
    key = run.folder.read_json("run.json")["key"]
    result = ablation(trained, "predict", f"run={key[:8]}", f"images={images}", f"to={out}", "score=0.001")
    names = {path.name for path in val_images.iterdir()}
    assert {path.name for path in out.iterdir()} == names | {"detections.json", "images.json"}
    results = json.loads((out / "detections.json").read_text())
    assert f"{len(results)} detections above 0.001 in 8 images" in result.stdout
    about = json.loads((out / "images.json").read_text())
    assert {image["id"]: image["file_name"] for image in about["images"]} == dict(enumerate(sorted(names), 1))
    assert [category["name"] for category in about["categories"]] == list(run.classes)
    for name in names:
        before, after = read_image(images / name), read_image(out / name)
        assert before.shape == after.shape
        assert (before != after).any() == any(one["file_name"] == name for one in results)


def test_a_damaged_image_costs_itself_alone(
    trained: Path, run: TrainedRun, val_images: Path, tmp_path: Path
) -> None:
    images = tmp_path / "images"
    shutil.copytree(val_images, images)
    damaged = sorted(images.iterdir())[2]
    damaged.write_bytes(damaged.read_bytes()[:100])
    result = ablation(
        trained, "predict", f"run={run.folder.path}", f"images={images}", f"to={tmp_path / 'out'}", check=1
    )
    line = error_line(result)
    assert "1 of 8 images could not be read" in line and damaged.name in line
    ids = [image["id"] for image in json.loads((tmp_path / "out" / "images.json").read_text())["images"]]
    assert ids == [1, 2, 4, 5, 6, 7, 8]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["predict", "images=."], "run=... is missing"),
        (["predict", "run={run}", "images=absent"], "images=absent: no such folder or file"),
        (["predict", "run={run}", "images={run}/detections"], "no image there"),
        (["predict", "run={run}", "images=.", "score=much"], "score=much: must be a number"),
        (["predict", "run={run}", "images=.", "score=1"], "must be in [0, 1)"),
        (["export", "run={run}", "format=caffe"], "format=caffe: must be one of darknet, pth, onnx"),
        (["export", "run={run}", "format=pth", "to=."], "is a folder; name a file"),
    ],
)
def test_wrong_usage_names_what_was_found(
    trained: Path, run: TrainedRun, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(trained)
    with pytest.raises(UsageError, match=re.escape(message)):
        command([argument.replace("{run}", str(run.folder.path)) for argument in arguments])


def test_wrong_usage_is_exit_code_2_and_one_line(trained: Path) -> None:
    result = ablation(trained, "export", "run=nothing", "format=pth", check=2)
    assert "run=nothing: no folder, and no run's key or MLflow id begins so" in error_line(result)


def test_images_are_never_written_over(run: TrainedRun, val_images: Path) -> None:
    before = {path.name: path.read_bytes() for path in val_images.iterdir()}
    with pytest.raises(UsageError, match="would be overwritten"):
        predict(run, val_images, val_images, 0.25)
    assert {path.name: path.read_bytes() for path in val_images.iterdir()} == before


def test_a_run_without_weights_or_with_damaged_ones_is_one_line(run: TrainedRun, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.path.mkdir()
    shutil.copy(run.folder.file("config.yaml"), folder.path)
    folder.set_state("DIVERGED", "epoch 1, step 2")
    with pytest.raises(UsageError, match=r"the run is DIVERGED \(epoch 1, step 2\) and has no weights\.pt"):
        load_run(folder)
    content = run.folder.file("weights.pt").read_bytes()
    folder.file("weights.pt").write_bytes(content[: len(content) // 2])
    with pytest.raises(StoreError, match=r"weights\.pt: not readable"):
        load_run(folder)
    folder.file("weights.pt").write_bytes(content)
    text = folder.file("config.yaml").read_text()
    folder.file("config.yaml").write_text(text.replace("width: 0.0625", "width: 0.125"))
    with pytest.raises(StoreError, match="does not fit the network"):
        load_run(folder)
    folder.file("config.yaml").write_text("model: {")
    with pytest.raises(StoreError, match=r"config\.yaml:\d+:\d+: not YAML"):
        load_run(folder)


def test_a_configuration_from_before_a_setting_existed_gets_its_default(
    run: TrainedRun, tmp_path: Path
) -> None:
    folder = RunFolder(tmp_path)
    shutil.copy(run.folder.file("weights.pt"), tmp_path)
    lines = run.folder.file("config.yaml").read_text().splitlines()
    kept = [line for line in lines if line.strip().split(":")[0] not in ("multi_scale", "schedule")]
    assert len(kept) == len(lines) - 2
    folder.file("config.yaml").write_text("\n".join(kept))
    assert load_run(folder).config == run.config


# pictures


def batch_of(count: int, side: int) -> tuple[Any, ...]:
    images = np.zeros((count, 3, side, side), np.uint8)
    boxes = np.zeros((count, 2, 4), np.float32)
    boxes[:, 0] = [side / 2, side / 2, side / 2, side / 4]
    present = np.zeros((count, 2), bool)
    present[:, 0] = True
    return images, boxes, np.ones((count, 2), np.int64), present


@pytest.mark.parametrize(("count", "columns", "rows"), [(1, 1, 1), (3, 2, 2), (16, 4, 4), (40, 4, 4)])
def test_a_batch_is_a_square_of_at_most_16_images(count: int, columns: int, rows: int) -> None:
    picture = batch_picture(*batch_of(count, 416), ("a", "b"))
    assert picture.shape == (rows * 260 + 22, columns * 260, 3)


def test_a_small_input_is_enlarged_with_its_boxes() -> None:
    """64 px becomes 192: the box from 16 to 48, 24 to 40 lies at 48 to 144, 72 to 120."""
    picture = batch_picture(*batch_of(1, 64), ("a", "b"))[:192, :192]
    inked = (picture == colour_of(1)).all(-1)
    assert inked[72, 48:144].all() and inked[119, 48:144].all()
    assert inked[72:120, 48].all() and inked[72:120, 143].all()
    assert not inked[73:119, 49:143].any()
    assert not inked[121:].any() and not inked[:, 145:].any()


def test_names_are_only_drawn_and_boxes_may_lie_anywhere() -> None:
    image = np.full((40, 60, 3), 7, np.uint8)
    boxes = np.array([[-1e9, -5, 1e9, 50], [50, 30, np.inf, np.nan], [5, 5, 5, 5]], np.float32)
    drawn = draw_boxes(image, boxes, [0, 1, 200], ["../../etc/passwd", "血液 \n\x00", ""])
    assert drawn.shape == image.shape and (drawn != image).any()
    assert (image == 7).all()


def test_every_run_keeps_a_picture_of_its_first_batch(trained: Path, run: TrainedRun) -> None:
    picture = read_image(run.folder.file("batch.png"))
    assert picture.shape == (3 * 196 + 22, 3 * 196, 3)  # 8 images of 64 px, threefold
    assert run.folder.file("batch.png") in run.folder.artifacts()
    assert list((trained / "mlartifacts").rglob("batch.png"))


def test_the_first_batch_shows_the_classes_of_the_data(run: TrainedRun) -> None:
    """Every colour of the boxes drawn belongs to a class of the data set."""
    assert isinstance(run.config.data, Shapes)
    picture = read_image(run.folder.file("batch.png"))
    legend = picture[-22:]
    for label in range(3):
        assert (legend == colour_of(label)).all(-1).any()
