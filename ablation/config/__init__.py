"""The configuration of a run and of a study: its schema, how it is checked, and its plain values."""

from ablation.config.plain import arm_name, flat, plain
from ablation.config.schema import (
    OPEN_GROUPS,
    AnalysisConfig,
    HalvingConfig,
    OptimConfig,
    RunConfig,
    TrackingConfig,
    TrainConfig,
)
from ablation.config.trainer import TrainerConfig
from ablation.config.typed import register, typed, typed_group

__all__ = [
    "OPEN_GROUPS",
    "AnalysisConfig",
    "HalvingConfig",
    "OptimConfig",
    "RunConfig",
    "TrackingConfig",
    "TrainConfig",
    "TrainerConfig",
    "arm_name",
    "flat",
    "plain",
    "register",
    "typed",
    "typed_group",
]
