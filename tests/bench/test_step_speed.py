"""Training steps: images/s, share of the machine's peak, ratios to other checkouts, alternated in one run.

BENCH_AGAINST: a checkout of an older version. BENCH_SEED: a checkout of the seed method's repository.
BENCH_JSON: where the results are written. All may be left out.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from helpers.bench import keep
from helpers.step_child import CASES

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ROOT / "tests" / "helpers"
MODELS = {"yolov4": (2, 1, 3), "tiny_small": (1, 6, 7), "demo": (1, 40, 9), "small": (1, 6, 5)}
"""Threads, steps at a time, and times of each case."""
STEP_GFLOP_PER_IMAGE = 180.0
"""Of a training step of YOLOv4 at 416 px: three times the forward pass's convolutions."""


class Worker:
    """A process that takes training steps when it is asked to."""

    def __init__(self, script: str, root: Path, case: str, threads: int) -> None:
        command = [sys.executable, str(SCRIPTS / script), str(root), case, str(threads)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=root
        )

    def steps(self, count: int) -> dict[str, float]:
        """Take `count` steps."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(f"{count}\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        assert line, "the process that was timed died"
        result: dict[str, float] = json.loads(line)
        return result

    def close(self) -> None:
        """End the process."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait()


def alternated(workers: list[Worker], count: int, rounds: int) -> list[dict[str, float]]:
    """Median seconds a step, last loss and peak memory of each, their turns alternating."""
    for worker in workers:
        worker.steps(2)
    turns = [[worker.steps(count) for worker in workers] for _ in range(rounds)]
    medians = []
    for results in zip(*turns, strict=True):
        middle = sorted(results, key=lambda result: result["wall_s"])[rounds // 2]
        medians.append(results[-1] | {name: middle[name] / count for name in ("wall_s", "cpu_s")})
    return medians


def peak_gflops(threads: int) -> float:
    """Of a bf16 product of matrices of 2,048 rows: the best of several."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    a = torch.randn(2048, 2048).bfloat16()
    best = float("inf")
    for _ in range(8):
        began = time.perf_counter()
        torch.mm(a, a)
        best = min(best, time.perf_counter() - began)
    torch.set_num_threads(before)
    return float(2 * 2048**3 / best / 1e9)


def others(case: str) -> list[tuple[str, str, Path]]:
    """(label, script, checkout) of what this checkout is compared with."""
    chosen = []
    if os.environ.get("BENCH_AGAINST"):
        chosen.append(("older", "step_child.py", Path(os.environ["BENCH_AGAINST"]).resolve()))
    if os.environ.get("BENCH_SEED") and case == "yolov4":
        chosen.append(("seed", "seed_step.py", Path(os.environ["BENCH_SEED"]).resolve()))
    return chosen


@pytest.mark.bench
@pytest.mark.parametrize("case", list(MODELS))
def test_training_steps(case: str) -> None:
    threads, count, rounds = MODELS[case]
    threads = min(threads, os.cpu_count() or 1)
    compared = [("this", "step_child.py", ROOT), *others(case)]
    workers = [Worker(script, root, case, threads) for _, script, root in compared]
    try:
        medians = alternated(workers, count, rounds)
    finally:
        for worker in workers:
            worker.close()
    results = dict(zip((label for label, _, _ in compared), medians, strict=True))
    this, images = results["this"], CASES[case]["batch_size"]
    rows = [f"{case}, {threads} threads: {images / this['wall_s']:.2f} images/s, {this['peak_mb']:.0f} MB"]
    rows += [
        f"  {label}: {images / result['wall_s']:.2f} images/s, "
        f"this one is {result['wall_s'] / this['wall_s']:.2f} times as fast"
        for label, result in results.items()
        if label != "this"
    ]
    if case == "yolov4":
        this["share_of_peak"] = STEP_GFLOP_PER_IMAGE * images / this["wall_s"] / peak_gflops(threads)
        rows.append(f"  {this['share_of_peak']:.0%} of the speed of a bf16 matrix product")
    print("\n" + "\n".join(rows))
    keep("steps", case, {"threads": threads, "images": images} | results)
    assert all(result["loss"] == result["loss"] for result in results.values())
