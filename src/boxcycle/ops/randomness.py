"""Random draws that belong to an image, not to a batch, a worker or a process."""

from __future__ import annotations

import torch

from boxcycle.types import Target

_STREAMS = 16  # room for that many independent streams an image


def image_generator(target: Target, stream: int, device: torch.device) -> torch.Generator:
    """The generator of one image's draws in one step.

    It is seeded by ``target["seed"]``, so that the losses of an image stay the same however the images are spread over
    batches and processes; where a user's own loop gives no seed, torch's global generator seeds it. Draws for different
    purposes use different streams (0..15): switching one task off leaves the draws of the others as they were.
    """
    seed = target["seed"] if "seed" in target else int(torch.randint(2**48, ()))
    return torch.Generator(device).manual_seed(seed * _STREAMS + stream)
