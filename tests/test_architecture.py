"""The shape of the house: imports run one way, the analysis needs no torch, gamma has few places."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "ablation"

# Each row may import from the rows above it and, inside a folder, from its own.
ROWS = [
    ["__init__"],
    ["errors"],
    ["files", "rng", "boxes", "records"],
    ["data"],
    ["model"],
    ["losses"],
    ["assigner"],
    ["criterion"],
    ["detect"],
    ["evaluate"],
    ["config_study"],
    ["config"],
    ["run_folder", "machine", "optim", "checkpoint"],
    ["diagnostics"],
    ["chart_view", "mirror", "store_read", "store_uri"],
    ["artifacts"],
    ["track"],
    ["train"],
    ["study"],
    ["export", "importing", "predict"],
    ["analyse"],
    ["confirm"],
    ["cli"],
]
RANK = {name: rank for rank, row in enumerate(ROWS) for name in row}
FILES = sorted(PACKAGE.rglob("*.py"))


def imports(path: Path) -> set[str]:
    """Full names of the modules a file imports, wherever in the file."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {str(node.module)}
    return found


def top(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_run_one_way(path: Path) -> None:
    mine = top(path)
    for name in imports(path):
        parts = name.split(".")
        if parts[0] != "ablation" or len(parts) < 2:
            continue
        other = parts[1]
        if other in RANK and other != mine:
            assert RANK[other] < RANK[mine], f"{path.name} ({mine}) imports {name}, which stands below it"


def test_every_module_has_a_row() -> None:
    assert {top(path) for path in FILES} == set(RANK)


def test_only_the_store_imports_mlflow() -> None:
    users = [path.name for path in FILES if any(name.split(".")[0] == "mlflow" for name in imports(path))]
    assert users == ["store.py"]


def test_the_analysis_loads_neither_torch_nor_training() -> None:
    program = (
        "import sys, pkgutil, importlib, ablation.analyse, ablation.tracking.store\n"
        "for m in pkgutil.walk_packages(ablation.analyse.__path__, 'ablation.analyse.'):\n"
        "    importlib.import_module(m.name)\n"
        "bad = [m for m in sys.modules if m.split('.')[0] == 'torch' or m in "
        "('ablation.training.run', 'ablation.config', 'ablation.study')]\n"
        "sys.exit(' '.join(bad[:5]) or 0)"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr


def test_gamma_stands_in_the_loss_its_yaml_the_sweeps_and_the_figures_that_plot_it() -> None:
    places = {
        str(path.relative_to(ROOT))
        for folder in ("ablation", "conf")
        for path in (ROOT / folder).rglob("*")
        if path.suffix in (".py", ".yaml") and re.search(r"gamma(?!_)", path.read_text())
    }
    assert {"ablation/losses/focal.py", "conf/loss/focal.yaml"} <= places
    losses = {
        place for place in places if re.fullmatch(r"ablation/losses/\w+\.py|conf/loss/\w+\.yaml", place)
    }
    usage = {"ablation/cli.py"}  # examples in the help text
    figures = {place for place in places if place.startswith("ablation/analyse/figures/")}
    assert places - losses - figures - usage == set()


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_files_are_short_enough_to_be_read_at_a_sitting(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 420
