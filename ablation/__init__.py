"""Ablation of YOLOv4's confidence (objectness) loss: BCE against focal, with paired seeds."""

__version__ = "0.2.0"
