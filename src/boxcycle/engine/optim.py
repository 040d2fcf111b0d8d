"""The optimizer over named parameter groups, and the clipping of their gradients."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from boxcycle.engine.config import FitConfig

GROUP_KEYS = {"name", "params", "weight_decay", "lr_scale"}


def parameter_groups(model: nn.Module, config: FitConfig) -> list[dict[str, Any]]:
    """The groups that ``model.parameter_groups()`` offers, or one group ``model``; trainable parameters only.

    A group has ``name`` and ``params``, and may have ``weight_decay`` (else the config's) and ``lr_scale`` (a factor,
    else 1). Raises ``ValueError`` if a trainable parameter is in no group or in two, or a group has an unknown key.
    """
    offer = getattr(model, "parameter_groups", None)
    offered: list[dict[str, Any]] = offer() if offer else [{"name": "model", "params": model.parameters()}]
    groups = []
    for group in offered:
        if unknown := set(group) - GROUP_KEYS:
            raise ValueError(
                f"parameter group {group.get('name')!r} has unknown keys {sorted(unknown)}; known: {sorted(GROUP_KEYS)}"
            )
        params = [parameter for parameter in group["params"] if parameter.requires_grad]
        if params:
            groups.append({"weight_decay": config.weight_decay, "lr_scale": 1.0, **group, "params": params})
    _check_cover(model, groups)
    return groups


def make_optimizer(groups: list[dict[str, Any]], config: FitConfig) -> torch.optim.Optimizer:
    """AdamW or SGD with momentum over ``groups``; each keeps its ``name``, ``weight_decay`` and ``lr_scale``."""
    if config.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=config.lr)
    return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum)


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Give every group ``lr`` times its ``lr_scale``."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_scale"]


def clip_gradients(groups: list[dict[str, Any]], how: str, max_norm: float) -> dict[str, Tensor]:
    """Scale gradients down to ``max_norm`` (L2) in place, and return the norms before, under the names to log.

    ``global``: all parameters together. ``group``: each group apart, so that auxiliary heads cannot take the detector's
    share. ``parameter``: each tensor apart, as the released code of MTL-SSL does; norms are too many to log.
    """
    if how == "global" or (how == "group" and len(groups) == 1):
        every = [parameter for group in groups for parameter in group["params"]]
        return {"grad_norm": nn.utils.clip_grad_norm_(every, max_norm)}
    if how == "group":
        return {f"grad_norm_{group['name']}": nn.utils.clip_grad_norm_(group["params"], max_norm) for group in groups}
    if how == "parameter":
        gradients = [p.grad for group in groups for p in group["params"] if p.grad is not None]
        norms = torch._foreach_norm(gradients)
        torch._foreach_mul_(gradients, [max_norm / norm.clamp(min=max_norm) for norm in norms])
    return {}


def _check_cover(model: nn.Module, groups: list[dict[str, Any]]) -> None:
    wanted = {id(parameter): name for name, parameter in model.named_parameters() if parameter.requires_grad}
    given = [id(parameter) for group in groups for parameter in group["params"]]
    if not wanted:
        raise ValueError("the model has no trainable parameter")
    if missing := [name for key, name in wanted.items() if key not in set(given)]:
        raise ValueError(f"parameter_groups() leaves out {len(missing)} trainable parameters: {', '.join(missing[:5])}")
    if len(given) != len(set(given)) or set(given) - set(wanted):
        raise ValueError("parameter_groups() holds a parameter twice, or one that is not the model's")
