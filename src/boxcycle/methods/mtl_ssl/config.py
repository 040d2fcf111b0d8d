"""What a user can set about the tasks: one frozen model, the paper's numbers beside each."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class TaskConfig(BaseModel):
    """The auxiliary tasks: their weights in the loss (0: off), and the choices that the paper leaves open.

    The defaults are the form that measured best in docs/reproduce/mtl-ssl.md: the tasks learn from the shared features
    and leave them as they are (while ``fit.clip=group``, the detector is exactly the plain one), and the refinement
    adds what they know. The paper's joint form is ``stop_gradient=false`` with the paper's weights.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    multi_object: float = Field(1.0, ge=0, description="weight of task 1, lambda_m of Eq. 3")
    closeness: float = Field(0.3, ge=0, description="weight of task 2, lambda_c of Eq. 3")
    foreground: float = Field(
        0.0,
        ge=0,
        description="weight of task 3, lambda_f of Eq. 3 (the paper: 1); it serves the shared features alone, so "
        "without stop_gradient=false it is of no use",
    )
    edges: float = Field(
        0.0, ge=0, description="weight of an experiment: how far are a box's edges from the cells inside it? (0: off)"
    )
    refinement: float = Field(
        1.0, ge=0, description="weight of the refinement loss, lambda_r of Eq. 4; 0: classes are not refined"
    )
    heads: Literal["region", "dense", "shared"] = Field(
        "dense",
        description="what classifies windows: region (a copy of the detector's last stage for each task, run for every "
        "window: the paper) | dense (one copy for both tasks, run once over the map) | shared (the detector's own last "
        "stage, run once over the map)",
    )
    windows: int = Field(64, gt=0, description="windows of an image and step for task 1, Nt")
    min_window: float = Field(32.0, gt=0, description="shortest side of a window, pixels of the original image")
    refinement_windows: int = Field(5, ge=2, description="windows around a region for the refinement, Nr")
    refined: int = Field(
        32, gt=0, description="sampled regions of an image that teach the refinement (the paper: all of them)"
    )
    refine_above: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="prediction refines proposals of which some class has this probability; 0: all (the paper)",
    )
    stop_gradient: bool = Field(
        True,
        description='the tasks do not teach the shared features (Table 6, "+Refinement"); false: they do (the paper)',
    )
    square_root: bool = Field(
        True, description="multi-object labels by square roots of areas (Algorithm 1); false: by areas"
    )
    same_class: bool = Field(
        False, description="closeness counts other boxes of the same class (the released code: false)"
    )
    closeness_reach: float | None = Field(
        None,
        gt=0,
        description="closeness falls off as exp(-d / (reach x the box's size)), such as 2; empty: as 1 - d / diagonal "
        "(Algorithm 2)",
    )
    closeness_background: bool = Field(
        True, description="closeness is learnt over K+1 classes (Eq. 2); false: over K, as the released code"
    )
    foreground_original: bool = Field(False, description="foreground cells, weights and tanh as the released code")
    foreground_masks: bool = Field(
        False, description="foreground by segmentation masks instead of boxes; needs data that has them"
    )
    refinement_leak: bool = Field(
        False, description="the refinement loss reaches the detector through x, as in the released code"
    )

    @model_validator(mode="after")
    def _one_foreground(self) -> TaskConfig:
        if self.foreground_masks and self.foreground_original:
            raise ValueError("foreground_original weighs cells by boxes, foreground_masks has none; choose one")
        return self

    @model_validator(mode="after")
    def _refinement_has_inputs(self) -> TaskConfig:
        if self.refinement and not (self.multi_object or self.closeness):
            raise ValueError(
                "refinement needs multi_object or closeness above 0, by which it refines; or set refinement to 0"
            )
        return self
