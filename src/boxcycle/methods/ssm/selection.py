"""Which candidates become pseudo boxes, and about which a person is asked."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from boxcycle.methods.ssm.labels import TINY, Candidates, binary_losses

UNDEFINED = -1  # a label: every classifier rejects the region


class QuestionConfig(BaseModel):
    """About which candidates a person is asked."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    count: int = Field(20, ge=0, description="questions of a round, z")
    max_consistency: float = Field(0.1, ge=0, le=1, description="a candidate of at most this consistency is doubtful")
    min_prob: float = Field(0.2, gt=0, lt=1, description="probability from which a class counts as possible")
    classes: int = Field(2, ge=1, description="possible classes that make the detector torn (the paper: more than two)")


class Attempts(NamedTuple):
    """What eq. 7 finds. ``labels`` [D]: 1..K, 0 background, -1 undefined; ``objectives`` [D, m+1]: of all negative,
    then of positive at class 0..m-1.
    """

    labels: Tensor
    objectives: Tensor


class PseudoBoxes(NamedTuple):
    """Candidates with the label and the weight in the losses that they have until the next round: [H] each."""

    candidates: Candidates
    labels: Tensor
    weights: Tensor


def self_paced_weights(losses: Tensor, validation: Tensor) -> Tensor:
    """v: which classifiers take part for a candidate. [SSM Eq. 3] [SSM Eq. 4]

    v l - f v is least at v = 1 where l <= f, else at 0. ``validation`` is f, the pace lambda times the consistency; NaN
    (not measured) lets nothing pass.

    Shapes: losses [D, m] of :func:`binary_losses`, validation [D]; returns [D, m] bool.
    """
    return losses <= validation.double()[:, None] + TINY


def predicted_weights(candidates: Candidates, pace: float) -> Tensor:
    """:func:`self_paced_weights` with the labels that the detector predicts: +1 at j*, -1 elsewhere; [D, m] bool.

    The paper's v needs labels that it is itself needed for; this is where its alternation starts.
    """
    positive = torch.nn.functional.one_hot(candidates.labels, candidates.probs.shape[1]).bool()
    return self_paced_weights(binary_losses(candidates.probs, positive), pace * candidates.consistency)


def least_probability(consistency: float, pace: float) -> float:
    """The probability of j* below which eq. 4 lets no candidate of this consistency pass: exp(-pace consistency).

    At consistency 1 it is a bound for all, known before anything is pasted. Eq. 7 asks for more than 0.5 as well,
    since there a candidate's class must beat "all negative".
    """
    return math.exp(-pace * consistency)


def can_be_selected(probs: Tensor, consistency: float, pace: float) -> Tensor:
    """Whether candidates could become pseudo boxes with a consistency of at most ``consistency``: exact, loses none.

    Shapes: probs [D, K+1]; returns [D] bool.
    """
    best, label = probs.double().max(1)
    return (label > 0) & (best > 0.5) & (best >= least_probability(consistency, pace) - TINY)


def assign_labels(probs: Tensor, weights: Tensor) -> Attempts:
    """The labels that fit the classifiers that take part best, by trying all m+1 of them. [SSM Eq. 7]

    At most one class may be positive. Objectives are compared to 12 decimals; of equal ones "all negative" comes first,
    then the lowest class. It equals the class of largest v logit(phi), if that is above 0.

    Shapes: probs [D, m], weights [D, m] of 0 and 1.
    """
    count = probs.shape[1]
    attempts = torch.cat([torch.zeros(1, count), torch.eye(count)]).bool().to(probs.device)  # [m+1, m]
    losses = binary_losses(probs[:, None], attempts)  # [D, m+1, m]
    objectives = (weights.double()[:, None] * losses).sum(-1)
    rounded = objectives.round(decimals=12)
    first = (rounded == rounded.amin(1, keepdim=True)).int().argmax(1)  # argmax gives the first of equal ones
    return Attempts(first + UNDEFINED, objectives)


def select_confident(candidates: Candidates, *, pace: float = 0.9, top: int = 500) -> Tensor:
    """The set H: rows of at most ``top`` candidates of each foreground class, the most consistent. [SSM section 3.2]

    A candidate competes in its class j*, if its consistency is above 0 and its own classifier takes part. Rows go by
    class, then by falling consistency.
    """
    labels = candidates.labels
    own = predicted_weights(candidates, pace).gather(1, labels[:, None])[:, 0]
    order = candidates.ranked(-candidates.consistency)
    order = order[(own & (candidates.consistency > 0) & (labels > 0))[order]]
    by_class = [order[labels[order] == label][:top] for label in range(1, candidates.probs.shape[1])]
    return torch.cat([order[:0], *by_class])


def pseudo_boxes(candidates: Candidates, *, pace: float = 0.9, top: int = 500, weigh: bool = False) -> PseudoBoxes:
    """The candidates of H that eq. 7 gives their own class, with weight 1, or their consistency with ``weigh``."""
    chosen = candidates[select_confident(candidates, pace=pace, top=top)]
    labels = assign_labels(chosen.probs, predicted_weights(chosen, pace)).labels
    kept = chosen[labels == chosen.labels]
    weights = kept.consistency.float() if weigh else torch.ones(len(kept))
    return PseudoBoxes(kept, kept.labels, weights)


def select_questions(
    candidates: Candidates,
    *,
    count: int,
    generator: torch.Generator,
    max_consistency: float = 0.1,
    min_prob: float = 0.2,
    classes: int = 2,
) -> Tensor:
    """The set U: rows of ``count`` random candidates of low consistency about which the detector is torn.

    [SSM section 3.2] Torn: at least ``classes`` foreground classes have ``min_prob``. The paper says "more than two
    positive labels", which a softmax cannot give at 0.5; three is its number. A candidate whose consistency was not
    measured counts as low. Rows go by rising consistency.
    """
    low = ~(candidates.consistency > max_consistency)
    eligible = low & is_torn(candidates.probs, min_prob=min_prob, classes=classes)
    order = candidates.ranked(candidates.consistency)
    order = order[eligible[order]]
    return order[torch.randperm(len(order), generator=generator)[:count].sort().values]


def is_torn(probs: Tensor, *, min_prob: float, classes: int) -> Tensor:
    """Whether at least ``classes`` foreground classes have ``min_prob``. Shapes: probs [D, K+1]; returns [D] bool."""
    return (probs[:, 1:] >= min_prob).sum(1) >= classes
