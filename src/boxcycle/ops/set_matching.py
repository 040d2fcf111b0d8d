"""One-to-one matching of predictions and boxes, of least total cost. [DETR Eq. 1]"""

from __future__ import annotations

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torchvision.ops import box_convert, generalized_box_iou

_NEVER = 1e6  # cost of a prediction that is not a number: matched only if there is nothing else


def focal_cost(probs: Tensor, labels: Tensor, alpha: float = 0.25, gamma: float = 2.0) -> Tensor:
    """What the focal loss of a query would change by if it were an object of a label. [Deformable DETR, released code]

    Shapes: probs [..., Q, K] of the foreground classes, labels [N] in 1..K; returns [..., Q, N].
    """
    chosen = probs[..., labels - 1]
    positive = alpha * (1 - chosen) ** gamma * -(chosen + 1e-8).log()
    negative = (1 - alpha) * chosen**gamma * -(1 - chosen + 1e-8).log()
    return positive - negative


def box_costs(boxes: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """Distance (L1) and negative generalised IoU of every pair.

    Shapes: boxes [..., Q, 4] and wanted [N, 4], cxcywh as parts of the image; returns two of [..., Q, N].
    """
    flat = boxes.flatten(0, -2)
    corners, wanted_corners = (box_convert(one, "cxcywh", "xyxy") for one in (flat, wanted))
    shape = (*boxes.shape[:-1], len(wanted))
    distance = torch.cdist(flat, wanted, p=1)
    return distance.view(shape), -generalized_box_iou(corners, wanted_corners).view(shape)


def match(cost: Tensor) -> tuple[Tensor, Tensor]:
    """Rows and columns of the matching of least cost, columns rising; at most one of each.

    Shapes: cost [Q, N]; returns two of [min(Q, N)] int64, on the CPU.
    """
    table = np.nan_to_num(cost.detach().cpu().double().numpy(), nan=_NEVER, posinf=_NEVER, neginf=_NEVER)
    rows, columns = linear_sum_assignment(table)
    order = np.argsort(columns)
    return torch.from_numpy(rows[order]), torch.from_numpy(columns[order])
