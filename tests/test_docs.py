"""README and docs: short, and every link, path and command in them exists."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from ablation import cli
from ablation.commands.arguments import Arguments
from ablation.errors import UsageError
from ablation.study.app import composed

ROOT = Path(__file__).resolve().parent.parent
READMES = (
    *("README.md", "conf/README.md", "sweeps/README.md", "notebooks/README.md"),
    *("ablation/analyse/README.md", "tests/faults/README.md", "CONTRIBUTING.md"),
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


class Parsed(Exception):
    """Stops a command once its arguments are read; carries what it would give to Hydra."""

    def __init__(self, overrides: list[str]) -> None:
        self.overrides = overrides


def commands_in(page: Path) -> list[list[str]]:
    """The arguments of each `ablation` command in the code of a page, continued lines joined."""
    text = page.read_text()
    code = "\n".join([*re.findall(r"```\w*\n(.*?)```", text, re.DOTALL), *re.findall(r"`([^`\n]+)`", text)])
    lines = re.findall(r"^(?:\S+/)?ablation ([a-z]+\b.*)$", code.replace("\\\n", " "), re.MULTILINE)
    return [shlex.split(line, comments=True) for line in lines]


def composable(argument: str) -> bool:
    """Whether an argument sets a value: no flag, and no file or plugin that a reader has yet to write."""
    unwritten = argument.endswith(("=NAME", "=mine", "launcher=ray")) or "launcher.ray." in argument
    return "=" in argument and not unwritten


@each_page
def test_commands_and_their_arguments_exist(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parse = Arguments.parse

    def parse_and_stop(*given: Any, **options: Any) -> Arguments:
        raise Parsed(parse(*given, **options).overrides)

    monkeypatch.setattr(Arguments, "parse", parse_and_stop)
    for command in commands_in(page):
        assert command[0] in cli.COMMANDS, f"{page.name}: no such command: {command}"
        if len(command) == 1:
            continue  # a command's name in running text
        if command[0] == "train":
            overrides = command[1:]
        else:
            with pytest.raises(Parsed) as stopped:
                cli.run(command)
            overrides = stopped.value.overrides
        settings = [argument for argument in overrides if composable(argument)]
        if settings:
            # A list multiplies the arms; its first value stands for all of them.
            composed([re.sub(r"^([^\[]+=[^,\[]+),.*", r"\1", setting) for setting in settings])


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


@pytest.mark.parametrize(
    "override", ["los=focal", "loss.alpha=2", "train.size_px=100", "data.root=nowhere", "tracking=server"]
)
def test_troubleshooting_quotes_what_the_command_says(
    override: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    group = {"loss.alpha=2": ["loss=focal"], "data.root=nowhere": ["data=voc"]}.get(override, [])
    with pytest.raises(UsageError) as raised:
        cli.run(["train", *group, override])
    first_clause = re.split("[;,]", str(raised.value))[0]
    assert first_clause in (ROOT / "docs/troubleshooting.md").read_text()
