"""The layer that corrects a region's class logits by what the tasks say of its surroundings. [MTL-SSL section 3.3]"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class Refiner(nn.Module):
    """x' = x + Wr [x, m1, ..., mNr, c] + b. [MTL-SSL Eq. 1]

    ``x``: the region's class logits; ``m1..mNr``: the multi-object head's logits of the windows around it, the region
    first, the whole image last; ``c``: the mean of the closeness head's logits over the regions of its image. A task
    that is switched off leaves its block out. Logits go in, logits come out. The gradient of the refinement loss stops
    at the inputs: it trains this layer alone. ``leak=True`` lets it through the residual x, as the released code does.
    """

    def __init__(self, num_classes: int, windows: int, closeness: bool, *, leak: bool = False) -> None:
        super().__init__()
        width = num_classes + 1
        inputs = width * (1 + windows + closeness)
        self.layer = nn.utils.skip_init(nn.Linear, inputs, width)
        # 0.01: the released configurations, of which COCO's has the most inputs, 7 x 91; x' is nearly x at the start.
        # More inputs would add up to more than x, so from there on their sum is kept as it is
        std = min(0.01, 0.01 * math.sqrt(7 * 91 / inputs))
        # own generator: the detector's weights do not depend on it
        generator = torch.Generator().manual_seed(0)
        nn.init.trunc_normal_(self.layer.weight, std=std, a=-2 * std, b=2 * std, generator=generator)
        nn.init.zeros_(self.layer.bias)
        self.leak = leak

    def forward(self, logits: Tensor, windows: Tensor | None, closeness: Tensor | None) -> Tensor:
        """Refined logits [R, K+1] of regions.

        Shapes: logits [R, K+1], windows [R, Nr, K+1], closeness [R, K+1], each row its image's mean.
        """
        blocks = [logits]
        if windows is not None:
            blocks.append(windows.flatten(1))
        if closeness is not None:
            blocks.append(closeness)
        residual = logits if self.leak else logits.detach()
        return residual + self.layer(torch.cat(blocks, dim=1).detach())
