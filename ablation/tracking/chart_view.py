"""What MLflow's own pages show of a study: a saved view of charts, as MLflow 3 keeps it in a tag.

The form is that of the pages' own `ExperimentPageUIState`; a page of another version that does not
know a field passes over it.
"""

from __future__ import annotations

import json
import time
from typing import Any

VIEW = "study"
"""Name of the view. Its tag is mlflow.sharedViewState.<VIEW>; saving again replaces it."""
TAG = f"mlflow.sharedViewState.{VIEW}"


def path(experiment: str) -> str:
    """Where in MLflow's pages the view opens, after the server's address."""
    return f"/#/experiments/{experiment}/runs?viewStateShareKey={VIEW}&compareRunsMode=CHART"


def envelope(title: str, metric: str, x: str, y: str) -> str:
    """The tag's value: parallel coordinates, contour and curves, of the study's runs only.

    Args:
        title: the view's name for people.
        metric: what is compared, such as val/AP.
        x, y: names of the parameters on the contour's axes, such as loss.alpha.
    """
    section = "study-section"
    common = {"runsCountToCompare": 1000, "metricSectionId": section, "deleted": False, "isGenerated": False}
    charts: list[dict[str, Any]] = [
        {
            "uuid": "study-parallel",
            "type": "PARALLEL",
            "displayName": f"{metric} over the settings",
            "selectedParams": [x, y],
            "selectedMetrics": [metric],
            "showAllRuns": True,
        },
        {
            "uuid": "study-contour",
            "type": "CONTOUR",
            "displayName": f"{metric} over {x} and {y}",
            "xaxis": {"key": x, "type": "PARAM"},
            "yaxis": {"key": y, "type": "PARAM"},
            "zaxis": {"key": metric, "type": "METRIC"},
        },
        _line("study-curves", metric),
        _line("study-loss", "train/loss"),
    ]
    state = {
        # Without the study's own run, which has no metrics.
        "searchFilter": "tags.kind = 'run'",
        "orderByKey": f"metrics.`{metric}`",
        "orderByAsc": False,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "modelVersionFilter": "All Runs",
        "datasetsFilter": [],
        "selectedColumns": [f"params.`{x}`", f"params.`{y}`", f"metrics.`{metric}`", "tags.`state`"],
        "runsHiddenMode": "SHOW_ALL",
        "compareRunCharts": [common | chart for chart in charts],
        "compareRunSections": [
            {
                "uuid": section,
                "name": title,
                "display": True,
                "isReordered": False,
                "deleted": False,
                "isGenerated": False,
            }
        ],
        "useGroupedValuesInCharts": True,
        "hideEmptyCharts": True,
        "groupBy": None,
        "autoRefreshEnabled": True,
    }
    return json.dumps({"name": title, "createdAt": round(time.time() * 1000), "state": json.dumps(state)})


def _line(uuid: str, metric: str) -> dict[str, Any]:
    return {
        "uuid": uuid,
        "type": "LINE",
        "displayName": f"{metric} over the epochs",
        "metricKey": metric,
        "selectedMetricKeys": [metric],
        "xAxisKey": "step",
        "useGlobalXaxisKey": False,
        "lineSmoothness": 0,
        "scaleType": "linear",
    }
