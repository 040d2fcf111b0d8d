"""Other ways to choose pseudo boxes and questions, from the same candidates: what SSM is held against.

Mean teacher is :func:`confident_boxes` with the averaged weights as the detector that mines (``ssm.ema``); consistency
under flip and scale is SSM's own choice on ``ssm.mining.validate_by=views``.
"""

from __future__ import annotations

import torch
from torch import Tensor

from boxcycle.methods.ssm.labels import Candidates, binary_losses
from boxcycle.methods.ssm.selection import PseudoBoxes, assign_labels, self_paced_weights


def confident_boxes(candidates: Candidates, *, threshold: float, top: int) -> PseudoBoxes:
    """Self-training: the ``top`` likeliest candidates of each class, if they have at least ``threshold``."""
    return _likeliest(candidates[candidates.probs.amax(1) >= threshold], top)


def self_paced_boxes(candidates: Candidates, *, tolerance: float, top: int) -> PseudoBoxes:
    """Self-paced learning: eq. 4 and 7 with one tolerated loss for all instead of cross image validation."""
    predicted = torch.nn.functional.one_hot(candidates.labels, candidates.probs.shape[1]).bool()
    validation = torch.full((len(candidates),), tolerance, dtype=torch.float64)
    taking_part = self_paced_weights(binary_losses(candidates.probs, predicted), validation)
    labels = assign_labels(candidates.probs, taking_part).labels
    return _likeliest(candidates[labels == candidates.labels], top)


def random_questions(candidates: Candidates, *, count: int, min_prob: float, generator: torch.Generator) -> Tensor:
    """Rows of ``count`` candidates of which some class has ``min_prob``, drawn at random."""
    order = _possible(candidates, candidates.image_ids, min_prob)
    return order[torch.randperm(len(order), generator=generator)[:count]]


def entropy_questions(candidates: Candidates, *, count: int, min_prob: float) -> Tensor:
    """Rows of the ``count`` candidates whose distribution has the highest entropy, of those of ``min_prob``."""
    probs = candidates.probs.double()
    return _possible(candidates, torch.xlogy(probs, probs).sum(1), min_prob)[:count]


def margin_questions(candidates: Candidates, *, count: int, min_prob: float) -> Tensor:
    """Rows of the ``count`` candidates whose two likeliest classes are closest, of those of ``min_prob``."""
    best = candidates.probs.double().topk(2, 1).values
    return _possible(candidates, best[:, 0] - best[:, 1], min_prob)[:count]


def _likeliest(candidates: Candidates, top: int) -> PseudoBoxes:
    ranked = candidates[candidates.ranked(-candidates.probs.amax(1))]
    by_class = [(ranked.labels == label).nonzero().flatten()[:top] for label in range(1, ranked.probs.shape[1])]
    chosen = ranked[torch.cat(by_class)]
    return PseudoBoxes(chosen, chosen.labels, torch.ones(len(chosen)))


def _possible(candidates: Candidates, keys: Tensor, min_prob: float) -> Tensor:
    order = candidates.ranked(keys)
    return order[(candidates.probs[:, 1:].amax(1) >= min_prob)[order]]
