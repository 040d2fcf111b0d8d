"""An exponential moving average of the weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Ema:
    """Averages of every floating-point tensor of ``model``'s state, in float32; whole numbers are copied.

    Update ``n`` (from 0) decays by ``min(decay, (1 + n) / (10 + n))``, so that a short run is not an average of its
    first weights: the rule of TensorFlow's ``ExponentialMovingAverage`` with ``num_updates``.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.updates = 0
        self.average = {name: _start(value) for name, value in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move the averages towards the weights of ``model``."""
        weight = 1 - min(self.decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        state = model.state_dict()
        moving = [name for name, value in state.items() if value.is_floating_point()]
        torch._foreach_lerp_([self.average[n] for n in moving], [state[n].float() for n in moving], weight)
        for name in state.keys() - set(moving):
            self.average[name].copy_(state[name])

    @contextmanager
    def applied(self, model: nn.Module) -> Iterator[None]:
        """``model`` carries the averages inside the block and its own weights again after it."""
        own = {name: value.detach().clone() for name, value in model.state_dict().items()}
        model.load_state_dict(self.average)
        try:
            yield
        finally:
            model.load_state_dict(own)

    def load(self, average: Mapping[str, Tensor], updates: int) -> None:
        """Put back saved averages."""
        for name, value in average.items():
            self.average[name].copy_(value)
        self.updates = updates


def _start(value: Tensor) -> Tensor:
    value = value.detach().clone()
    return value.float() if value.is_floating_point() else value
