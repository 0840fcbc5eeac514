"""README and docs: short, and every link, path and command in them exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ablation import cli

ROOT = Path(__file__).resolve().parent.parent
READMES = (
    *("README.md", "conf/README.md", "sweeps/README.md", "notebooks/README.md"),
    *("ablation/analyse/README.md", "tests/faults/README.md"),
)
PAGES = sorted([*(ROOT / "docs").glob("*.md"), *(ROOT / name for name in READMES)])
FOLDERS = ("ablation/", "conf/", "docs/", "notebooks/", "sweeps/", "tests/", ".github/")


each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub and MkDocs make them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 120


@each_page
def test_relative_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if "://" in link:
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), f"{page.name}: {link}"
        assert not anchor or anchor in anchors(target), f"{page.name}: {link}: no such heading"


@each_page
def test_named_paths_exist(page: Path) -> None:
    for name in re.findall(r"`([\w./{},*-]+/[\w./{},*-]*)`", page.read_text()):
        # `mine` is the file that a reader is told how to add.
        if name.startswith(FOLDERS) and "mine" not in name:
            assert list(ROOT.glob(name.rstrip("/"))), f"{page.name} names {name}"


@each_page
def test_commands_exist(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cli.run(["--help"])
    commands = set(re.findall(r"^  ablation (\w+)", capsys.readouterr().out, re.MULTILINE))
    text = page.read_text()
    code = "\n".join([*re.findall(r"```\w*\n(.*?)```", text, re.DOTALL), *re.findall(r"`([^`\n]+)`", text)])
    named = re.findall(r"^(?:\S+/)?ablation ([a-z]+)\b", code, re.MULTILINE)
    assert set(named) <= commands, f"{page.name}: no such command"


@each_page
def test_make_targets_exist(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"`make ([a-z-]+)`", page.read_text())) <= targets | {"help"}


def test_glossary_is_short() -> None:
    rows = re.findall(r"^\| ([^|]+) \| ([^|]+) \|$", (ROOT / "docs/glossary.md").read_text(), re.MULTILINE)
    entries = [(word, meaning) for word, meaning in rows if word != "word"]
    assert 20 <= len(entries) <= 25
    for word, meaning in entries:
        assert len(meaning.split()) <= 25, f"{word}: {len(meaning.split())} words"


def test_pictures_are_small() -> None:
    for name in ("report.png", "mlflow.png"):
        assert (ROOT / "docs/img" / name).stat().st_size <= 150_000


def test_every_page_is_in_the_navigation() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text()
    assert {page.name for page in (ROOT / "docs").glob("*.md")} == set(
        re.findall(r"([\w]+\.md)$", navigation, re.MULTILINE)
    )


def test_ci_calls_targets_of_the_makefile() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    called = set(re.findall(r"run: make ([a-z-]+)", (ROOT / ".github/workflows/ci.yml").read_text()))
    assert {"lint", "test", "coverage", "docs"} <= called <= targets
