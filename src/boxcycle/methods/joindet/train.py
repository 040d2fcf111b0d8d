"""`boxcycle pretrain joindet`: a whole detector from images alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import Field
from torch import nn

from boxcycle.data.config import DataConfig, open_split
from boxcycle.data.index import Index
from boxcycle.data.one_class import FOREGROUND, one_class, without_any_box
from boxcycle.data.proposals import ProposalConfig
from boxcycle.data.read import find_splits
from boxcycle.engine.fit import fit
from boxcycle.methods.experiment import DetrFitConfig, Experiment, RunConfig
from boxcycle.methods.joindet.batches import PRIORS, Batches
from boxcycle.methods.joindet.detector import JoinDet, PretrainDetrConfig
from boxcycle.methods.joindet.priors import PriorConfig
from boxcycle.methods.joindet.viewer import write_viewer
from boxcycle.methods.weights import load_detector_weights


class Config(RunConfig):
    """`boxcycle pretrain joindet`."""

    detector: PretrainDetrConfig = PretrainDetrConfig()
    init: Path | None = Field(None, description="a run of `pretrain joindet`, or its weights: start from its detector")
    priors: PriorConfig = PriorConfig()
    proposals: ProposalConfig = ProposalConfig()
    jitter: tuple[float, float] | None = Field(
        None,
        description="large-scale jitter: least and largest size of an image in training, as parts of data.resize.long "
        "(the paper: 0.1, 2)",
    )
    fit: DetrFitConfig = DetrFitConfig()


class Pretraining(Experiment):
    """A run that sees images and nothing else: what people said of them is taken away.

    If the evaluation split has boxes, the detector's proposals are judged by them, whatever the classes; they choose no
    weights.
    """

    config: Config

    def training_split(self) -> Index:
        """All images of the training split, annotated or not."""
        return without_any_box(self.read_training_split())

    def evaluation_split(self) -> Index:
        """The annotated images of the evaluation split, all objects of one class; none where there is no such split."""
        data = self.config.data
        if data.val == DataConfig.model_fields["val"].default and data.val not in find_splits(data.path, data.format):
            return self.train_index.subset([])
        index = one_class(open_split(data, data.val, self.findings))
        return index.subset(index.annotated.nonzero()[0])

    def describe(self) -> str:
        return f"{len(self.train_index)} images, and no box"

    def pretrain(self, model: JoinDet) -> None:
        """Train ``model`` on priors that are made anew every few steps."""
        self.open()
        fit(
            model,
            Batches(self, model),
            self.config.fit,
            self.folder,
            evaluate=self.figures if len(self.val_index) else None,
            best=None,
            resume=self.config.resume,
            metadata=self.metadata(),
        )

    def finish(self, model: nn.Module) -> None:
        """Keep pictures of the priors; and proposals, their figures and a report, where there are boxes to judge by."""
        if self.is_main:
            title = f"priors of {self.folder.name}"
            print(f"pictures of the priors: {write_viewer(self.folder / PRIORS, self.train_index, title)}")
        if len(self.val_index):
            super().finish(model)


def build(config: Config, class_names: Sequence[str] = FOREGROUND) -> JoinDet:
    """The detector before its first step; it has one class, whatever ``class_names`` are."""
    model = JoinDet(config.detector)
    if config.init is not None:
        load_detector_weights(model.detector, config.init, FOREGROUND)
    return model


def train(config: Config) -> Path:
    """Pretrain; returns the run's folder. [JoinDet section 2]"""
    experiment = Pretraining("joindet", config)
    model = build(config)
    experiment.pretrain(model)
    experiment.finish(model)
    return experiment.folder
