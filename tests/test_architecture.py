"""The shape of the house: imports run one way, the analysis needs no torch, gamma has few places."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.sources import FILES, PACKAGE, ROOT, imports

# Each room may import those below it and, inside a folder, its own files.
ROOMS = (
    *("cli", "commands", "study", "training", "config", "objective", "model", "analyse", "data"),
    *(
        "tracking",
        "losses",
        "records",
        "machine",
        "boxes",
        "files",
        "yaml_files",
        "rng",
        "imports",
        "errors",
        "__init__",
    ),
)
HEIGHT = {room: -depth for depth, room in enumerate(ROOMS)}
MODULES = {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in FILES}


def module(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_modules(path: Path) -> frozenset[str]:
    """The package's own modules that a file imports, late imports included."""
    return (imports(path) & MODULES) - {module(path)}


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_run_downwards(path: Path) -> None:
    for name in imported_modules(path) - {"ablation"}:
        other = name.split(".")[1]
        if other != room(path):
            assert HEIGHT[other] < HEIGHT[room(path)], f"{module(path)} imports {name}, which stands above it"


def test_every_room_has_its_place() -> None:
    assert {room(path) for path in FILES} == set(ROOMS)


def circles(arrows: dict[str, set[str]]) -> list[str]:
    """The nodes from which a way leads back to themselves."""

    def reachable(start: str) -> set[str]:
        seen: set[str] = set()
        todo = list(arrows[start])
        while todo:
            node = todo.pop()
            if node not in seen:
                seen.add(node)
                todo += arrows.get(node, set())
        return seen

    return sorted(node for node in arrows if node in reachable(node))


def test_no_two_modules_import_each_other_not_even_late() -> None:
    # A package's own __init__ offers names of its modules; that is no circle of files.
    arrows = {module(path): imported_modules(path) for path in FILES if path.name != "__init__.py"}
    assert circles(arrows) == []


@pytest.mark.parametrize(
    "folder",
    [
        "",
        *sorted(
            str(p.parent.relative_to(PACKAGE))
            for p in FILES
            if p.name == "__init__.py" and p.parent != PACKAGE
        ),
    ],
)
def test_the_rooms_of_a_folder_form_no_circle(folder: str) -> None:
    """Rooms are the files and folders directly inside a folder."""
    inside = [path for path in FILES if path.is_relative_to(PACKAGE / folder)]
    rooms = {module(path): path.relative_to(PACKAGE / folder).parts[0] for path in inside}
    arrows: dict[str, set[str]] = {name: set() for name in rooms.values() if name != "__init__.py"}
    for path in inside:
        here = rooms[module(path)]
        if here != "__init__.py":
            arrows[here] |= {rooms[name] for name in imported_modules(path) if name in rooms} - {
                here,
                "__init__.py",
            }
    assert circles(arrows) == []


def test_the_search_for_circles_finds_one() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c"]


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
    usage = {"ablation/cli.py", "ablation/commands/report.py"}  # examples in the help text; axes in MLflow
    figures = {place for place in places if place.startswith("ablation/analyse/figures/")}
    assert places - losses - figures - usage == set()


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_files_are_short_enough_to_be_read_at_a_sitting(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 420
