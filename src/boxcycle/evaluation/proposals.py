"""How well boxes cover objects, whatever their classes: the figures by which detectors without classes are judged."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from boxcycle.data.index import Index
from boxcycle.data.one_class import one_class
from boxcycle.evaluation.coco import coco_metrics
from boxcycle.evaluation.predictions import Prediction

FIGURES = ("AP", "AP50", "AP75", "AR1", "AR10", "AR100")


def proposal_metrics(index: Index, predictions: Sequence[Prediction]) -> dict[str, float]:
    """COCO's figures with all classes taken for one (``useCats = 0``), percent. [JoinDet Table 4]

    The scores of ``predictions`` rank the boxes of an image; the 100 best count. Raises ``ValueError`` as
    :func:`coco_metrics` does.
    """
    found = [prediction._replace(labels=np.ones_like(prediction.labels)) for prediction in predictions]
    summary = coco_metrics(one_class(index), found).summary
    return {name: summary[name] for name in FIGURES}
