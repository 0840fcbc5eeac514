"""The packages without which nothing runs; imports none of them."""

from __future__ import annotations

import importlib.metadata
import importlib.util

from ablation.commands.doctor.lines import Line

NEEDED = {
    "torch": "torch",
    "numpy": "numpy",
    "cv2": "opencv-python-headless",
    "hydra": "hydra-core",
    "pycocotools": "pycocotools",
}


def look() -> Line:
    """One line: which versions there are, or what is missing."""
    missing = [package for module, package in NEEDED.items() if not is_installed(module)]
    if missing:
        remedy = f"pip install {' '.join(missing)}"
        return Line("packages", "failed", f"missing: {', '.join(missing)}", remedy)
    return Line("packages", "ok", ", ".join(f"{package} {_version(package)}" for package in NEEDED.values()))


def is_installed(module: str) -> bool:
    """Whether a module could be imported."""
    try:
        return importlib.util.find_spec(module) is not None
    except ImportError:
        return False


def _version(package: str) -> str:
    for name in (package, package.removesuffix("-headless")):
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return "of unknown version"
