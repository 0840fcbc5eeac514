"""What a data set must not be able to read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from helpers.voc_folder import annotation, write_voc

from ablation.data.coco import Coco
from ablation.data.voc import Voc
from ablation.data.yolo import Yolo
from ablation.errors import DataError


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
    content = {
        "images": [{"id": 1, "file_name": f"{name}.jpg", "width": 9, "height": 9}],
        "annotations": [],
        "categories": [{"id": 1, "name": "a"}],
    }
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
