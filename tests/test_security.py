"""What a configuration, a data set, a weights file or a name must not be able to do."""

from __future__ import annotations

import ast
import hashlib
import io
import json
import os
import pickle
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from helpers.command import ROOT, TINY, ablation, error_line
from helpers.store import store_in
from helpers.voc_folder import annotation, write_voc
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ablation import cli
from ablation.config import typed
from ablation.data.coco import Coco
from ablation.data.voc import Voc
from ablation.data.yolo import Yolo
from ablation.errors import DataError, StoreError, UsageError
from ablation.files import metric_name, safe_name
from ablation.model.weights import load_weights
from ablation.study.app import composed
from ablation.study.hydra_guard import refuse_foreign_code
from ablation.tracking.run_folder import RunFolder
from ablation.training import checkpoint
from ablation.training.trained_run import load_run

FILES = sorted((ROOT / "ablation").rglob("*.py"))


def calls() -> Iterator[tuple[str, str, ast.Call]]:
    """Every call in the package: where it stands, what is called (as written), and the call."""
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                yield f"{path.relative_to(ROOT)}:{node.lineno}", ast.unparse(node.func), node


# servers


def test_the_user_interface_listens_on_loopback_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    started: list[list[str]] = []

    def run(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        started.append(command)
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.chdir(tmp_path)
    (tmp_path / "mlflow.db").write_bytes(b"")
    monkeypatch.setattr("ablation.tracking.store.Store.prepare", lambda store: None)
    monkeypatch.setattr("ablation.cli.subprocess.run", run)
    assert cli.run(["ui"]) == 0
    (command,) = started
    assert command[command.index("--host") + 1] == "127.0.0.1"
    for path in FILES:
        assert "0.0.0.0" not in path.read_text(), path


@pytest.mark.slow
def test_what_listens_is_loopback(tmp_path: Path) -> None:
    """The real server, looked at through the kernel's table of sockets."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "ablation.cli", "ui", f"port={port}"], cwd=tmp_path, start_new_session=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        until = time.monotonic() + 90
        while not (found := _listening(port)):
            assert time.monotonic() < until and process.poll() is None
            time.sleep(0.2)
        assert found == {"0100007F"}, found  # 127.0.0.1 as the kernel writes it
    finally:
        os.killpg(process.pid, 9)
        process.wait()


def _listening(port: int) -> set[str]:
    rows = [line.split() for table in ("/proc/net/tcp", "/proc/net/tcp6") if Path(table).exists()
            for line in Path(table).read_text().splitlines()[1:]]  # fmt: skip
    return {row[1].split(":")[0] for row in rows if row[3] == "0A" and int(row[1].split(":")[1], 16) == port}


# code in files


class Boom:
    """Unpickling it leaves a mark."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return Path.touch, (self.mark,)


def test_the_pickle_of_these_tests_is_one_that_runs_code(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Boom(tmp_path / "mark")))
    assert (tmp_path / "mark").exists()


@pytest.mark.parametrize("plain", [True, False], ids=["pickle", "torch.save"])
def test_code_in_a_weights_file_is_refused(tmp_path: Path, plain: bool) -> None:
    mark, path = tmp_path / "mark", tmp_path / "weights.pth"
    content = {"model": Boom(mark)}
    path.write_bytes(pickle.dumps(content)) if plain else torch.save(content, path)
    with pytest.raises(DataError) as error:
        load_weights(torch.nn.Linear(1, 1), path, False)  # type: ignore[arg-type]
    assert str(path) in str(error.value) and "\n" not in str(error.value)
    assert not mark.exists()


def test_code_in_a_checkpoint_is_refused_even_with_the_right_hash(tmp_path: Path) -> None:
    mark, buffer = tmp_path / "mark", io.BytesIO()
    torch.save({"model": Boom(mark)}, buffer)
    digest = hashlib.sha256(buffer.getvalue()).hexdigest()[:16]
    path = tmp_path / f"checkpoint-000001-{digest}.pt"
    path.write_bytes(buffer.getvalue())
    with pytest.raises(StoreError, match=re.escape(path.name)):
        checkpoint.load_newest(tmp_path)
    assert not mark.exists()


def test_code_in_the_weights_of_a_run_is_refused(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    (tmp_path / "config.yaml").write_text(OmegaConf.to_yaml(_without_hydra("loss=bce")))
    torch.save({"model": Boom(mark), "classes": ["a"]}, tmp_path / "weights.pt")
    with pytest.raises(StoreError, match=r"weights\.pt: not readable"):
        load_run(RunFolder(tmp_path))
    assert not mark.exists()


def test_every_torch_load_takes_weights_only_and_nothing_else_unpickles() -> None:
    loads = [(where, call) for where, name, call in calls() if name.endswith("torch.load")]
    assert len(loads) >= 3
    for where, call in loads:
        given = {word.arg: ast.unparse(word.value) for word in call.keywords}
        assert given.get("weights_only") == "True", where
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [str(node.module)] if isinstance(node, ast.ImportFrom) else []
            assert not {"pickle", "dill", "joblib", "shelve", "marshal", "cloudpickle"} & {
                name.split(".")[0] for name in names
            }, path
    for where, name, call in calls():
        if name in ("np.load", "numpy.load", "pd.read_pickle"):
            assert name.endswith("load"), where
            given = {word.arg: ast.unparse(word.value) for word in call.keywords}
            assert given.get("allow_pickle", "False") == "False", where


def test_mlflow_may_not_unpickle_and_is_told_before_it_is_imported() -> None:
    program = (
        "import ablation.tracking.store, mlflow.environment_variables as e; "
        "print(e.MLFLOW_ALLOW_PICKLE_DESERIALIZATION.get(), e.MLFLOW_DISABLE_TELEMETRY.get())"
    )
    bare = {k: v for k, v in os.environ.items() if not k.startswith("MLFLOW_")} | {"PYTHONPATH": str(ROOT)}
    result = subprocess.run(
        [sys.executable, "-c", program], env=bare, capture_output=True, text=True, check=True
    )
    assert result.stdout.split() == ["False", "True"]
    lines = (ROOT / "ablation" / "tracking" / "store.py").read_text().splitlines()
    told = next(n for n, line in enumerate(lines) if "MLFLOW_ALLOW_PICKLE_DESERIALIZATION" in line)
    assert told < next(n for n, line in enumerate(lines) if re.match(r"(from|import) mlflow", line))


# code in configurations


def _without_hydra(*overrides: str) -> Any:
    config = composed(list(overrides))
    OmegaConf.set_struct(config, False)
    config.pop("hydra", None)
    return config


@pytest.mark.parametrize("group", ["loss", "data", "model"])
@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "subprocess.Popen",
        "builtins.eval",
        "pathlib.Path.touch",
        "ablation.cli.main",
        "ablation.files.write_text",
        "ablation.cli.subprocess.run",
        "ablation.cli.os.system",
        "ablation.losses.base.ConfidenceLoss",
        "ablation.losses.focal.dataclass",
        "ablation.losses.focal.Focal.__init__",
        "ablation.config.RunConfig",
        "ablation..losses",
        "ablation",
        ".",
        "evil.Evil",
        "ablation_evil.Evil",
    ],
)
def test_only_the_projects_own_kind_is_built(
    group: str, target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("evil", "ablation_evil"):
        (tmp_path / f"{name}.py").write_text(
            f"import pathlib; pathlib.Path({str(tmp_path)!r}, 'mark').touch()"
        )
    monkeypatch.syspath_prepend(tmp_path)
    config = _without_hydra("loss=focal")
    config[group]["_target_"] = target
    with pytest.raises(UsageError, match=rf"{group}\._target_"):
        typed(config)
    assert not (tmp_path / "mark").exists(), "its module was imported"


def test_a_class_of_the_wrong_group_is_refused() -> None:
    config = _without_hydra("loss=focal")
    config.loss._target_ = type(typed(config).model).__module__ + "." + type(typed(config).model).__name__
    with pytest.raises(UsageError, match="not a dataclass derived from ConfidenceLoss"):
        typed(config)


@pytest.mark.parametrize(
    "place", ["loss.extra", "loss.alpha", "criterion.extra", "train.epochs", "data.extra"]
)
def test_a_target_inside_a_group_is_never_built(place: str, tmp_path: Path) -> None:
    config = _without_hydra("loss=focal")
    OmegaConf.set_struct(config, False)
    node = {"_target_": "pathlib.Path.touch", "self": str(tmp_path / "mark")}
    with pytest.raises((UsageError, OmegaConfBaseException), match=r"extra|alpha|epochs"):
        OmegaConf.update(config, place, node, force_add=True)
        typed(config)
    assert not (tmp_path / "mark").exists()


def test_a_sweep_file_cannot_make_hydra_call_something(tmp_path: Path) -> None:
    """Through the real command: as a callback, as a plugin, and as a handler of its log."""
    mark = tmp_path / "mark"
    touch = {"_target_": "pathlib.Path.touch", "self": str(mark)}
    handler = {"class": "subprocess.Popen", "args": ["touch", str(mark)]}
    nodes = {
        "callback": {"callbacks": {"x": touch}},
        "launcher": {"launcher": {"_target_": "ablation.study.app.os.system"}},
        "sweeper": {"sweeper": {"_target_": "ablation_evil.Evil"}},
        "logging": {"job_logging": {"version": 1, "handlers": {"x": handler}, "root": {"handlers": ["x"]}}},
        "factory": {"hydra_logging": {"version": 1, "formatters": {"x": {"()": "os.getcwd"}}}},
        "dotted": {"job_logging": {"handlers": {"x": {"class": "logging.os.system", "command": "true"}}}},
        "import": {
            "job_logging": {"handlers": {"x": {"class": "logging.StreamHandler", "stream": "ext://evil"}}}
        },
    }
    for name, node in nodes.items():
        with pytest.raises(UsageError, match=r"^hydra\.\S+: found .*may not name code"):
            refuse_foreign_code(node)
        if name == "callback":
            (tmp_path / "sweeps").mkdir(exist_ok=True)
            head = f"# @package _global_\nstudy: {name}\narms: [{{loss: bce}}]\n"
            (tmp_path / "sweeps" / f"{name}.yaml").write_text(head + yaml.safe_dump({"hydra": node}))
            result = ablation(tmp_path, "train", "-m", f"sweeps={name}", *TINY, check=2)
            assert "may not name code" in error_line(result)
    assert not mark.exists()


def test_no_resolver_evaluates_anything(tmp_path: Path) -> None:
    composed([])
    for name in ("eval", "oc.eval", "py", "python"):
        assert not OmegaConf.has_resolver(name)
    mark = tmp_path / "mark"
    config = _without_hydra("loss=bce")
    config.study = f"${{oc.eval:\"open('{mark}', 'w')\"}}"
    with pytest.raises(UsageError, match="study"):
        typed(config)
    assert not mark.exists()
    for where, name, _ in calls():
        assert "register_new_resolver" not in name and "register_resolver" not in name, where


FORBIDDEN = ("eval", "exec", "compile", "__import__", "os.system", "os.popen", "yaml.load",
             "yaml.unsafe_load", "yaml.full_load", "subprocess.getoutput",
             "subprocess.getstatusoutput")  # fmt: skip


def test_nothing_evaluates_text_and_programs_get_lists_of_arguments() -> None:
    started = 0
    for where, name, call in calls():
        assert name not in FORBIDDEN, f"{where}: {name}"
        assert not name.startswith("os.spawn") and not name.startswith("os.exec"), where
        if name.endswith((".eval", ".query")):  # a network's eval() takes nothing; pandas' evaluate text
            assert not call.args and not call.keywords, where
        if name.startswith("subprocess."):
            started += 1
            assert not any(word.arg == "shell" for word in call.keywords), f"{where}: shell="
            first = call.args[0]
            assert not isinstance(first, ast.Constant | ast.JoinedStr | ast.BinOp), (
                f"{where}: a text, no list"
            )
    assert started >= 1


# names


EVIL = ["../../x", "/etc/passwd", "a\0b", "x" * 5000, "-rf", "..", ".", "~root", "a\nb", "a/../../b",
        "\\\\host\\x", "ünï/çødé", "<script>", "$(touch x)", "%2e%2e/", "C:\\x", "", " ", ".hidden",
        "a;b|c&d"]  # fmt: skip


@pytest.mark.parametrize("name", EVIL, ids=lambda name: repr(name[:12]))
def test_a_name_is_one_plain_component_of_a_path(name: str, tmp_path: Path) -> None:
    safe = safe_name(name)
    assert re.fullmatch(r"[A-Za-z0-9_=][A-Za-z0-9._=-]*", safe) and len(safe) <= 120
    path = RunFolder.of(tmp_path, name, name, 3, "0123456789abcdef").path
    assert path.resolve() == path and path.relative_to(tmp_path).parts == (safe, safe, "seed3-01234567")
    path.mkdir(parents=True)
    assert [entry.name for entry in tmp_path.iterdir()] == [safe]


@pytest.fixture(scope="module")
def mlflow_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, str]:
    """A client of a real store, and the id of a run in it."""
    store = store_in(tmp_path_factory.mktemp("metrics"))
    store.prepare()
    client = store.client()
    return client, str(client.create_run(store.experiment("names")).info.run_id)


@pytest.mark.parametrize("name", [*EVIL, "dog (small)", "猫", "a/b", "a:b"], ids=lambda name: repr(name[:12]))
def test_a_class_of_any_name_has_a_metric_that_mlflow_takes(name: str, mlflow_run: tuple[Any, str]) -> None:
    client, run = mlflow_run
    metric = metric_name(f"val/AP_class/{name}")
    client.log_metric(run, metric, 0.5)
    assert client.get_run(run).data.metrics[metric] == 0.5
    assert metric.startswith("val/AP_class") and metric != metric_name(f"val/AP_class/{name}!")
    assert metric_name("val/AP_class/white cell") == "val/AP_class/white cell"


def test_names_from_data_and_configuration_stay_names(tmp_path: Path) -> None:
    """A real study whose every name is an attack: nothing is written elsewhere, nothing becomes markup."""
    script, image = "<script>alert(1)</script>", "<img src=x onerror=alert(2)>"
    root = write_voc(tmp_path / "data" / "voc")
    for path in (root / "Annotations").iterdir():
        text = path.read_text().replace("dog", script.replace("<", "&lt;")).replace("cat", "../../../escaped")
        path.write_text(text)
    work = tmp_path / "deep" / "work"
    work.mkdir(parents=True)
    before = _tree(tmp_path)
    study = f"../../evil {script}"
    tiny = [word for word in TINY if not word.startswith(("data.", "train.epochs", "train.batch_size"))]
    common = ["data=voc", f"data.root={root}", "train.batch_size=2", "train.epochs=1", "augment=none"]
    (work / "sweeps").mkdir()
    sweep = {"study": study, "description": image, "seeds": [0], "arms": [
        {"loss": "bce"}, {"arm": f"=cmd|{image}", "loss": "focal"}]}  # fmt: skip
    (work / "sweeps" / "evil.yaml").write_text("# @package _global_\n" + yaml.safe_dump(sweep, width=10**6))
    ablation(work, "train", "-m", "sweeps=evil", *tiny, *common)
    ablation(work, "report", f"study={study}", check=None)
    outside = {path for path in _tree(tmp_path) - before if not path.is_relative_to(work)}
    assert outside == set()
    (folder,) = (work / "runs").glob("*/report")
    text = (folder / "arms.md").read_text()
    assert script not in text and image not in text and "alert" in text
    assert not re.search(r"^=cmd", (folder / "runs.csv").read_text().replace(",", "\n"), re.MULTILINE)
    page = folder / "report.html"
    assert page.exists(), "the report has no page"
    found = _Markup()
    found.feed(page.read_text())
    assert found.bad == [] and "alert(" in found.text


class _Markup(HTMLParser):
    """Finds markup that came from a name."""

    def __init__(self) -> None:
        super().__init__()
        self.bad: list[str] = []
        self.text = ""
        self._script = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._script = tag == "script"
        self.bad += [f"{tag} {key}={value}" for key, value in attrs if key.startswith("on") or value == "x"]

    def handle_endtag(self, tag: str) -> None:
        self._script = False

    def handle_data(self, data: str) -> None:
        if self._script and "alert(" in data:
            self.bad.append(data)
        self.text += data


def _tree(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


# data sets


def test_an_entity_in_an_annotation_is_refused(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("cat")
    bomb = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10}">' for n in range(1, 12))
    heads = {
        "bomb": f'<!DOCTYPE x [<!ENTITY e0 "cat">{bomb}]>',
        "outside": f'<!DOCTYPE x [<!ENTITY e11 SYSTEM "{secret.as_uri()}">]>',
    }
    for name, head in heads.items():
        root = write_voc(tmp_path / name)
        (root / "Annotations" / "a.xml").write_text(head + annotation("a", [("&e11;", 1, 1, 9, 9)]))
        with pytest.raises(DataError, match=r"a\.xml"):
            Voc(root=str(root)).open()


@pytest.mark.parametrize(
    "name", ["../../secret", "/etc/passwd", "..\\..\\secret", "a/../../../secret", "a\0b"]
)
def test_an_images_name_cannot_lead_out_of_its_data_set(tmp_path: Path, name: str) -> None:
    root = write_voc(tmp_path / "voc")
    (root / "ImageSets" / "Main" / "train.txt").write_text(f"{name}\nb\n")
    with pytest.raises(DataError):
        Voc(root=str(root)).open()
    coco = tmp_path / "coco"
    (coco / "train").mkdir(parents=True)
    content = {"images": [{"id": 1, "file_name": f"{name}.jpg", "width": 9, "height": 9}], "annotations": [],
               "categories": [{"id": 1, "name": "a"}]}  # fmt: skip
    (coco / "train.json").write_text(json.dumps(content))
    with pytest.raises(DataError):
        Coco(
            root=str(coco),
            train_json="train.json",
            val_json="train.json",
            test_json=None,
            train_images="train",
        ).open()
    yolo = tmp_path / "yolo"
    yolo.mkdir()
    (yolo / "list.txt").write_text(f"{name}.jpg\n")
    (yolo / "data.yaml").write_text("train: list.txt\nval: list.txt\nnames: [a]\n")
    with pytest.raises(DataError):
        Yolo(root=str(yolo)).open()
