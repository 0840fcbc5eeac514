"""SGD and AdamW of torch, started without torch's compiler.

torch's optimizers import torch._dynamo, more than a second, only to exclude themselves from torch.compile.
Here nothing is compiled around an optimizer's step; the numbers are torch's own to the bit.
"""

from __future__ import annotations

import sys
from typing import Any

import torch

_EXCLUDED = "__dynamo_disable"
"""Where torch's wrapper of a method keeps the function that torch.compile passes over."""


def _undecorated(function: Any) -> Any:
    """What torch has wrapped; the function itself where this version of torch has not."""
    return getattr(function, "__wrapped__", function)


def _exclude_methods() -> None:
    """Name the excluded functions before the first call, which would import torch._dynamo to make them.

    Without a compiler that is the function itself. Another version of torch passes over the name.
    """
    if "torch._dynamo" in sys.modules:
        return
    for name in ("add_param_group", "zero_grad", "state_dict", "load_state_dict"):
        function = _undecorated(getattr(torch.optim.Optimizer, name))
        if not hasattr(function, _EXCLUDED):
            setattr(function, _EXCLUDED, function)


class SGD(torch.optim.SGD):
    """torch.optim.SGD."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        _exclude_methods()
        super().__init__(*arguments, **settings)

    def step(self, closure: Any = None) -> Any:
        """One step, without a gradient of its own."""
        with torch.no_grad():
            return _undecorated(torch.optim.SGD.step)(self, closure)


class AdamW(torch.optim.AdamW):
    """torch.optim.AdamW."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        _exclude_methods()
        super().__init__(*arguments, **settings)

    def step(self, closure: Any = None) -> Any:
        """One step, without a gradient of its own."""
        with torch.no_grad():
            return _undecorated(torch.optim.AdamW.step)(self, closure)
