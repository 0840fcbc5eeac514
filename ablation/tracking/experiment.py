"""What MLflow holds about a study as a whole: its plan, its report, its text, its charts."""

from __future__ import annotations

import json
from pathlib import Path

from ablation.errors import without_userinfo
from ablation.records import Plan
from ablation.tracking import chart_view
from ablation.tracking.store import Store


def publish_plan(store: Store, study: str, plan: Plan) -> None:
    """Keep what the study consists of, and what it declared, at its parent run."""
    with store.errors():
        parent = store.parent_run(store.experiment(study, plan.description), study)
        assert parent is not None
        store.log_text(parent, "plan.json", without_userinfo(json.dumps(plan.to_json(), indent=1)))


def publish_files(store: Store, study: str, files: list[Path], folder: str, tags: dict[str, str]) -> str:
    """Attach files to the study's parent run; returns that run's id."""
    client = store.client()
    with store.errors():
        parent = store.parent_run(store.experiment(study), study)
        assert parent is not None
        for file in files:
            store.log_file(parent, file, folder)
        for key, value in tags.items():
            client.set_tag(parent, key, value)
    return parent


def set_experiment(store: Store, study: str, description: str, tags: dict[str, str]) -> str:
    """The text on the study's page in MLflow ('' leaves it), and tags; returns the experiment's id."""
    experiment = store.experiment(study)
    tags = tags | ({"mlflow.note.content": description} if description else {})
    with store.errors():
        for key, value in tags.items():
            store.client().set_experiment_tag(experiment, key, value)
    return experiment


def save_chart_view(store: Store, study: str, metric: str, x: str, y: str) -> str:
    """Save charts of the study in MLflow; returns the path of MLflow's page that opens on them.

    Args:
        metric: what is compared, such as val/AP.
        x, y: names of two parameters, for the axes of the contour.
    """
    tags = {chart_view.TAG: chart_view.envelope(f"Study {study}", metric, x, y)}
    return chart_view.path(set_experiment(store, study, "", tags))
