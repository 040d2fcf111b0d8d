"""The learning rate as a function of the step: no state, so a resumed run needs none restored."""

from __future__ import annotations

import math
from bisect import bisect_right

from boxcycle.engine.config import FitConfig

FIRST_SHARE = 1e-3  # of the learning rate, at the first warm-up step: torchvision's detection recipe
ONE_CYCLE_RISE = 0.3  # of the steps; with the next two: the values of the paper's author, which torch.optim took over
ONE_CYCLE_FIRST = 1 / 25
ONE_CYCLE_LAST = 1 / 25 / 1e4


def learning_rate(config: FitConfig, step: int) -> float:
    """The learning rate of step number ``step`` (0 is the first).

    one_cycle: Smith and Topin, "Super-convergence", 2017, with cosine branches; cosine: Loshchilov and Hutter, "SGDR",
    2016, one cycle.
    """
    return config.lr * _factor(config, step)


def _factor(config: FitConfig, step: int) -> float:
    if config.schedule == "one_cycle":
        return _one_cycle(config, step)
    warmup = config.warmup or 0
    if step < warmup:
        return FIRST_SHARE + (1 - FIRST_SHARE) * step / warmup
    if config.schedule == "cosine":
        return _cosine(1.0, 0.0, (step - warmup) / (config.steps - warmup))
    return config.gamma ** bisect_right(config.milestones, step)


def _one_cycle(config: FitConfig, step: int) -> float:
    rise = ONE_CYCLE_RISE * config.steps if config.warmup is None else config.warmup
    top, last = rise - 1, config.steps - 1  # the steps at which the rate is highest and lowest
    if step <= top:
        return _cosine(ONE_CYCLE_FIRST, 1.0, step / top if top else 1.0)
    return _cosine(1.0, ONE_CYCLE_LAST, (step - max(top, 0.0)) / (last - max(top, 0.0)) if last else 0.0)


def _cosine(start: float, end: float, done: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * done)) / 2
