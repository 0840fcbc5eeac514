"""Damaged folders of runs: plan.json, DONE, state.json, metrics.jsonl, run.json, config.yaml, weights.pt."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import yaml
from helpers.command import TINY
from helpers.fuzz import Reader, Result
from helpers.mutations import Damage
from omegaconf import OmegaConf

from ablation.config import typed
from ablation.records import Declaration, PlannedRun
from ablation.study.app import composed
from ablation.study.plan_file import extend_plan, plan_file
from ablation.study.run_status import study_status
from ablation.tracking.run_folder import RunFolder
from ablation.training.checkpoint import save_weights
from ablation.training.trained_run import load_run

Fuzz = Callable[[Reader, int], Result]

# a study's folder

PARAMS = {"train.epochs": "3", "train.eval_every": "1", "loss.name": "bce"}
KEYS = ("a" * 64, "b" * 64)
FINAL = ("FINISHED", "DIVERGED")
STATES = (*FINAL, "RUNNING", "STOPPED", "KILLED", "FAILED", "PRUNED")


def run_of(folder: Path, seed: int) -> RunFolder:
    return RunFolder.of(folder / "runs", "s", "bce", seed, KEYS[seed])


def write_study(folder: Path) -> None:
    """A finished run and one that was killed after its second epoch."""
    planned = [PlannedRun("bce", seed, KEYS[seed], "ablation train", PARAMS) for seed in (0, 1)]
    declaration = Declaration("val/AP", 0.01, 0.95, ("focal",), 5, 0)
    extend_plan(folder / "runs", "s", planned, declaration)
    for seed, state in enumerate(("FINISHED", "KILLED")):
        run = run_of(folder, seed)
        run.path.mkdir(parents=True)
        facts = {"study": "s", "arm": "bce", "seed": seed, "key": KEYS[seed], "params": PARAMS}
        run.write_json("run.json", facts)
        for epoch in range(1, 4 - seed):
            values = {"val/AP": 0.25 * epoch, "time/train_s": 2.0, "time/images_per_s": 50.0}
            run.append_metrics(epoch, values | ({"val/AP_class/x": math.nan} if epoch == 1 else {}))
        run.file("checkpoint-000002-0123456789abcdef.pt").touch()
        run.set_state(state, "because")


def damage_study(folder: Path, damage: Damage) -> None:
    name = damage.choose(("DONE", "state.json", "metrics.jsonl", "plan.json"))
    seed = damage.choose((0, 1))
    path = run_of(folder, 0 if name == "DONE" else seed).file(name)
    if name == "plan.json":
        damage.json_file(plan_file(folder / "runs", "s"))
    elif name == "state.json":
        damage.json_file(path)
    elif name == "metrics.jsonl" and damage.random.random() < 0.6:
        lines = damage.tree([json.loads(line) for line in path.read_text().splitlines()])
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    else:
        damage.text_file(path)


def read_study(folder: Path) -> Any:
    status = study_status(folder / "runs", "s").as_json()
    json.dumps(status, allow_nan=False)
    lines = {}
    for run in status["runs"]:
        if run["status"] not in ("to do", "failed"):
            place = RunFolder(Path(run["folder"]))
            lines[run["seed"]] = (place.state, place.reason, place.settled_metrics())
    return status, lines


def wrong_study(folder: Path, value: Any, undamaged: Any) -> str | None:
    """Statuses, epochs and values by the plain reading of the same files."""
    status, lines = value
    plan = json.loads(plan_file(folder / "runs", "s").read_bytes())
    if not isinstance(plan["runs"], list) or len(status["runs"]) != len(plan["runs"]):
        return f"{len(status['runs'])} runs, the plan says {plan['runs']!r:.300}"
    for run, planned in zip(status["runs"], plan["runs"], strict=True):
        typed_right = isinstance(planned["seed"], int) and not isinstance(planned["seed"], bool)
        if not typed_right or not all(isinstance(planned[name], str) for name in ("arm", "key", "command")):
            return f"a planned run of the wrong types was taken: {planned!r:.300}"
        if (run["arm"], run["seed"], run["key"]) != (planned["arm"], planned["seed"], planned["key"]):
            return f"{run} is not {planned!r:.300}"
        why = _wrong_run(run, RunFolder(Path(run["folder"])), lines.get(run["seed"]), status["metric"])
        if why:
            return why
    declared = plan.get("declared", [])
    if status["metric"] != (declared[0]["metric"] if declared else "val/AP"):
        return f"compared by {status['metric']}, declared is {declared!r:.300}"
    for entry in declared:
        if not isinstance(entry["margin"], int | float) or not 0 < entry["level"] < 1:
            return f"a declaration that means nothing was taken: {entry!r:.300}"
    return None


def _wrong_run(run: dict[str, Any], place: RunFolder, read: Any, metric: str) -> str | None:
    done = place.file("DONE")
    if not place.path.is_dir():
        return None if run["status"] == "to do" else f"{run['status']} without a folder"
    text = done.read_bytes().decode("utf-8", "replace").strip() if done.exists() else None
    if run["status"] == "failed":
        return None if run["note"] else "failed, and it does not say why"
    if text is not None and (text not in FINAL or run["status"] != text.lower()):
        return f"{run['status']}, but DONE holds {text!r:.100}"
    if text is None and place.file("state.json").exists():
        state = json.loads(place.file("state.json").read_bytes())
        if state.get("state", "MISSING") not in (*STATES, "MISSING"):
            return f"{run['status']}, but the state is {state.get('state')!r:.100}"
    if not place.file("metrics.jsonl").exists() or read is None:
        return None
    texts = place.file("metrics.jsonl").read_bytes().decode("utf-8", "surrogateescape").split("\n")
    whole = [json.loads(text) for text in texts[:-1] if text]
    values = []
    for line in whole:
        numbers = isinstance(line, dict) and [line["epoch"], line["time_ms"], *line["metrics"].values()]
        if not numbers or any(isinstance(n, bool) or not isinstance(n, int | float) for n in numbers):
            return f"a line that is none was taken: {line!r:.300}"
        values += [line["metrics"][metric]] if metric in line["metrics"] else []
    epochs = [line["epoch"] for line in whole]
    if not all(isinstance(epoch, int) and epoch >= 1 for epoch in epochs) or sorted(set(epochs)) != epochs:
        return f"epochs {epochs} were taken"
    if texts[-1]:
        return None  # half a line at the end may be a whole one
    expected = values[-1] if values and math.isfinite(values[-1]) else None
    if run["value"] != expected:
        return f"value {run['value']}, the file says {expected}"
    return None


def special(name: str, content: bytes, seed: int = 0) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        path = plan_file(folder / "runs", "s") if name == "plan.json" else run_of(folder, seed).file(name)
        path.write_bytes(content)

    return write


STUDY_SPECIAL = {
    "DONE in Latin-1": special("DONE", b"FERTIG: gr\xfc\xdfe"),
    "DONE empty": special("DONE", b""),
    "DONE of another word": special("DONE", b"FINISHED?\n"),
    "metrics in Latin-1": special("metrics.jsonl", b'{"epoch": 1, "time_ms": 1, "metrics": {"\xfc": 1}}\n\n'),
    "metrics of a list": special("metrics.jsonl", b"[1, 2]\n"),
    "metrics without an epoch": special("metrics.jsonl", b'{"metrics": {"val/AP": 0.5}}\n', 1),
    "metrics of text": special("metrics.jsonl", b'{"epoch":1,"time_ms":1,"metrics":{"val/AP":"x"}}\n'),
    "deep metrics": special("metrics.jsonl", b"[" * 100_000 + b"\n\n"),
    "deep plan": special("plan.json", b"[" * 100_000),
    "deep plan of objects": special("plan.json", b'{"runs":' * 50_000),
    "plan of a number": special("plan.json", b"3"),
    "plan of text": special("plan.json", b'{"runs": "many"}'),
    "plan in UTF-16": special("plan.json", '{"runs": []}'.encode("utf-16")),
    "state of a list": special("state.json", b"[1]", 1),
    "deep state": special("state.json", b"[" * 100_000, 1),
}
STUDY = Reader("run folder", write_study, damage_study, read_study, wrong_study, STUDY_SPECIAL)


def test_folders_of_a_study(fuzz: Fuzz, mutations: int) -> None:
    assert fuzz(STUDY, mutations).failures == []


# a trained run


def write_trained(folder: Path) -> None:
    content = composed([*TINY, "loss=focal"])
    OmegaConf.set_struct(content, False)
    content.pop("hydra", None)
    config = typed(content)
    (folder / "config.yaml").write_text(OmegaConf.to_yaml(content))
    save_weights(folder / "weights.pt", config.model.build(2, config.train.size_px, 1), ["cat", "dog"])
    RunFolder(folder).set_state("FINISHED")


def damage_trained(folder: Path, damage: Damage) -> None:
    path = folder / damage.choose(("config.yaml", "config.yaml", "weights.pt"))
    if path.suffix == ".pt":
        if damage.random.random() < 0.5:
            damage.binary_file(path)
            return
        state = torch.load(path, weights_only=True)
        if damage.random.random() < 0.5:
            torch.save(damage.tree({"classes": state["classes"]}) | {"model": state["model"]}, path)
            return
        key = damage.choose(sorted(state["model"]))
        tensor = state["model"][key]
        odd: Any = {
            "meta": lambda: tensor.to("meta"),
            "sparse": lambda: tensor.to_sparse() if tensor.ndim else tensor,
            "nan": lambda: tensor * math.nan,
            "complex": lambda: tensor.to(torch.complex64),
            "text": lambda: "x",
            "shape": lambda: tensor[None],
            "bool": lambda: tensor.bool(),
            "expanded": lambda: torch.zeros(1).expand(2**40),
        }
        state["model"][key] = odd[damage.choose(sorted(odd))]()
        torch.save(state, path)
    elif damage.random.random() < 0.6:
        tree = damage.tree(yaml.safe_load(path.read_text()))
        path.write_text(yaml.safe_dump(tree, sort_keys=False))
    else:
        damage.text_file(path)


def read_trained(folder: Path) -> Any:
    return load_run(RunFolder(folder))


def wrong_trained(folder: Path, value: Any, undamaged: Any) -> str | None:
    """The network must hold the file's numbers, and the configuration the YAML's."""
    state = torch.load(folder / "weights.pt", weights_only=True)
    if list(value.classes) != state["classes"] or len(set(value.classes)) != len(value.classes):
        return f"classes {value.classes!r:.300} of {state['classes']!r:.300}"
    for name, live in value.network.state_dict().items():
        stored = state["model"][name]
        if stored.is_complex() or stored.dtype == torch.bool or not torch.isfinite(live).all():
            return f"{name} was taken from a {stored.dtype}, or is not finite"
        if not torch.equal(live, stored.to(live.dtype)):
            return f"{name} is not the file's"
    content = yaml.safe_load((folder / "config.yaml").read_text())
    for group, name in (("loss", "gamma"), ("train", "epochs"), ("optim", "lr"), ("model", "width")):
        read = getattr(getattr(value.config, group), name)
        given = (content.get(group) or {}).get(name, read)
        if read != given and str(read) != str(given) and float(read) != float(given):
            return f"{group}.{name} is {read}, the file says {given!r:.100}"
    return None


TRAINED = Reader(
    "run's config and weights", write_trained, damage_trained, read_trained, wrong_trained, kept=(199,)
)


def test_trained_runs(fuzz: Fuzz, mutations: int) -> None:
    assert fuzz(TRAINED, mutations).failures == []
