"""The loss scale of fp16, and the check that a step that is not finite reaches no weight."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ablation.errors import Diverged

INITIAL_SCALE = 2.0**16
LEAST_SCALE, LARGEST_SCALE = 2.0**-14, 2.0**24
GROW_AFTER = 2000
"""Finite steps after which the scale is tried at twice its size."""


class LossScale:
    """The factor that keeps the gradients of a float16 network above float16's smallest numbers.

        backward computes  g' = d(s L)/dw,   the optimizer gets  g = g' / s

    s is a power of two, so that the division is exact. After a gradient that is not finite s is halved,
    and doubled after GROW_AFTER finite steps in succession. Everything stays on the device.

    Attributes:
        scale: () float32, in [LEAST_SCALE, LARGEST_SCALE].
        finite_steps: () int32, finite steps since s changed.
    """

    def __init__(self, device: torch.device) -> None:
        self.scale = torch.tensor(INITIAL_SCALE, device=device)
        self.finite_steps = torch.zeros((), dtype=torch.int32, device=device)

    def update(self, finite: Tensor) -> None:
        """Choose the next step's scale.

        Args:
            finite: () bool, whether this step's gradient is.
        """
        steps = torch.where(finite, self.finite_steps + 1, 0)
        grows = steps >= GROW_AFTER
        larger = torch.where(grows, self.scale * 2, self.scale)
        self.scale = torch.where(finite, larger, self.scale / 2).clamp(LEAST_SCALE, LARGEST_SCALE)
        self.finite_steps = torch.where(grows, 0, steps).to(torch.int32)

    def state(self) -> dict[str, float | int]:
        """What a checkpoint holds of it."""
        return {"scale": float(self.scale), "finite_steps": int(self.finite_steps)}

    def load(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint's state."""
        scale, steps = float(state["scale"]), int(state["finite_steps"])
        if not LEAST_SCALE <= scale <= LARGEST_SCALE or not 0 <= steps < GROW_AFTER:
            raise ValueError(f"its loss scale is {scale:g} with {steps} finite steps")
        self.scale.fill_(scale)
        self.finite_steps.fill_(steps)


@dataclass(frozen=True)
class _Outcome:
    """What a step on the device will have come to, once `copied` says that it is on the host.

    Attributes:
        values: (3,) on the host: diverged (0 or 1), loss, gradient norm.
    """

    values: Tensor
    copied: torch.cuda.Event | None
    epoch: int
    index: int


class StepGuard:
    """Backward and the optimizer's step, so that what is not finite reaches neither weights nor averages.

    fp32 and bf16: a loss or a gradient that is not finite ends the run as DIVERGED. fp16: so does such a
    loss, or such a gradient at LEAST_SCALE; at a larger scale the step is left out and the scale halved.

    On a CPU the host decides at once. On a GPU it would have to wait for the device in each step: there the
    optimizer is handed the flag and leaves the step out by itself; the host reads the flag before the
    optimizer's next step, which the device has then long been computing.

    Args:
        optimizer: fused; its parameters are those whose gradients are unscaled.
        scale: of fp16; None: other precisions.
        deferred: whether the decision is the device's.

    Attributes:
        taken: () bool on the device, whether the last step was taken; None where one that was not has
            raised (fp32 and bf16 on a CPU).
    """

    def __init__(self, optimizer: torch.optim.Optimizer, scale: LossScale | None, deferred: bool) -> None:
        self.optimizer, self.scale, self.deferred = optimizer, scale, deferred
        self.taken: Tensor | None = None
        self._pending: _Outcome | None = None
        _allocate_momentum(optimizer)

    def backward(self, loss: Tensor) -> None:
        """Gradients of `loss`, in its own units whatever the scale."""
        if self.scale is None:
            loss.backward()  # type: ignore[no-untyped-call]
            return
        (loss * self.scale.scale).backward()  # type: ignore[no-untyped-call]
        parameters = (p for group in self.optimizer.param_groups for p in group["params"])
        gradients = [p.grad for p in parameters if p.grad is not None]
        torch._foreach_mul_(gradients, self.scale.scale.reciprocal())

    def step(self, loss: Tensor, norm: Tensor, epoch: int, index: int) -> None:
        """The optimizer's step, unless the loss or the gradient is not finite.

        Args:
            loss: (), detached.
            norm: () of the unscaled gradient.
            epoch, index: of the step, from 0.

        Raises:
            Diverged: with the step's loss and norm; where the decision is the device's, in the step after.
        """
        finite = torch.isfinite(norm) & torch.isfinite(loss)
        if self.deferred:
            self._deferred_step(finite, loss, norm, epoch, index)
            return
        if not bool(finite) and bool(self._hopeless(finite, loss)):
            raise _diverged(epoch, index, float(loss), float(norm))
        if self.scale is not None:
            self.scale.update(finite)
            self.taken = finite
        if bool(finite):
            self.optimizer.step()

    def _hopeless(self, finite: Tensor, loss: Tensor) -> Tensor:
        """() bool: this step ends the run."""
        if self.scale is None:
            return ~finite
        return ~finite & (~torch.isfinite(loss) | (self.scale.scale <= LEAST_SCALE))

    def _deferred_step(self, finite: Tensor, loss: Tensor, norm: Tensor, epoch: int, index: int) -> None:
        self.finish()  # the step before: the device has long been busy with this one
        diverged = self._hopeless(finite, loss)
        self.taken = finite
        if self.scale is not None:
            self.scale.update(finite)
        self.optimizer.found_inf = (~finite).float()  # type: ignore[attr-defined]
        self.optimizer.step()
        self._pending = _sent(torch.stack([diverged.float(), loss, norm]), epoch, index)

    def finish(self) -> None:
        """Read what the last step has come to, where the device has decided on it.

        Raises:
            Diverged: it was not finite.
        """
        outcome, self._pending = self._pending, None
        if outcome is None:
            return
        if outcome.copied is not None:
            outcome.copied.synchronize()
        diverged, loss, norm = outcome.values.tolist()
        if diverged:
            raise _diverged(outcome.epoch, outcome.index, loss, norm)


def _sent(values: Tensor, epoch: int, index: int) -> _Outcome:
    """Start the copy to the host, without waiting for it."""
    if values.device.type != "cuda":
        return _Outcome(values, None, epoch, index)
    host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
    host.copy_(values, non_blocking=True)
    copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
    copied.record()
    return _Outcome(host, copied, epoch, index)


def _diverged(epoch: int, index: int, loss: float, norm: float) -> Diverged:
    return Diverged(f"epoch {epoch + 1}, step {index + 1}: loss {loss:.4g}, gradient norm {norm:.4g}")


def _allocate_momentum(optimizer: torch.optim.Optimizer) -> None:
    """Give SGD its momentum at zero, which leads to the same numbers as none.

    torch leaves it uninitialised if the first step is left out, and its fused step refuses parameters of
    which only some have one, as after the thaw of a frozen backbone.
    """
    for group in optimizer.param_groups:
        if isinstance(optimizer, torch.optim.SGD) and group["momentum"] != 0:
            for parameter in group["params"]:
                optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
