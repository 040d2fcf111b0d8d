"""What a user can set about mining: one frozen model, the paper's numbers beside its own."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from boxcycle.methods.ssm.labels import Form


class MiningConfig(BaseModel):
    """How candidates are found and validated."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    min_score: float = Field(0.1, gt=0, lt=1, description="least probability of a region that is looked at or ignored")
    min_side: float = Field(12.0, gt=0, description="shortest side of a region, pixels of the model's image")
    validate_by: Literal["pasting", "views", "nothing"] = Field(
        "pasting",
        description="pasting into other images; the image itself flipped and rescaled (Fig. 4); nothing",
    )
    targets: int = Field(5, ge=1, description="images that a candidate is pasted into (the paper: 5)")
    form: Form = Field("matched", description="what counts there: matched | max | literal5 | literal6 | vote")
    pace: float = Field(0.9, gt=0, description="lambda of Eq. 5: higher lets less probable candidates pass")
    block: int = Field(256, ge=1, description="images that are mined together, so that their crops may share copies")
    pack: int = Field(
        10,
        ge=1,
        description="most crops, of one class and block, that share a copy of a target; forms other than matched and "
        "max look at a whole image, which then has one",
    )
    gap: float = Field(16.0, ge=0, description="pixels between crops that share a copy")
    window: float | None = Field(
        None,
        gt=1,
        description="detect in a window of the target, this many times as long as the crop; empty: in the whole target "
        "(the paper)",
    )
    prune: bool = Field(True, description="paste only what could become a pseudo box; loses none")
    early_stop: bool = Field(True, description="stop pasting a candidate of which nothing can change any more")
    keep_rounds: int = Field(3, ge=0, description="rounds that the consistency of an unchanged candidate is kept")
    any_context: bool = Field(False, description="a class that every annotated image shows: paste into those")
    batch_size: int = Field(8, ge=1, description="images that the detector is given at once")

    @property
    def crops_of_a_copy(self) -> int:
        """``pack``, or 1 where all detections of an image count for a crop."""
        return self.pack if self.form in ("matched", "max") else 1
