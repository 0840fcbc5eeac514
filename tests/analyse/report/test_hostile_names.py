"""Names that are attacks, from the data set to the report."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import yaml
from helpers.command import TINY, ablation
from helpers.voc_folder import write_voc


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
    arms = [{"loss": "bce"}, {"arm": f"=cmd|{image}", "loss": "focal"}]
    sweep = {"study": study, "description": image, "seeds": [0], "arms": arms}
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
    markup = _Markup()
    markup.feed(page.read_text())
    assert markup.bad == [] and "alert(" in markup.text


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
