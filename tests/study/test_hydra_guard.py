"""A sweep file sets Hydra's own settings too; it may not name code there."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from helpers.command import TINY, ablation, error_line

from ablation.errors import UsageError
from ablation.study.hydra_guard import refuse_foreign_code


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
