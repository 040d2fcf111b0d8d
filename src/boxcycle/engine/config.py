"""What a user can set about training: one frozen model, every field with its unit."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Clip = Literal["none", "global", "group", "parameter"]


class FitConfig(BaseModel):
    """Settings of :func:`boxcycle.engine.fit.fit`. A *step* is one update of the weights."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    steps: int = Field(1000, ge=1, description="updates of the weights")
    batch_size: int = Field(4, ge=1, description="images a step, over all processes and micro-batches")
    accumulate: int = Field(1, ge=1, description="micro-batches a step: less memory, the same images a step")

    optimizer: Literal["adamw", "sgd"] = Field("adamw", description="adamw, or sgd with momentum")
    lr: float = Field(1e-3, gt=0, description="highest learning rate of the schedule")
    momentum: float = Field(0.9, ge=0, lt=1, description="momentum of sgd")
    weight_decay: float = Field(1e-4, ge=0, description="weight decay, where a parameter group names no other")
    schedule: Literal["one_cycle", "cosine", "steps", "constant"] = Field(
        "one_cycle", description="how the learning rate falls: to nothing (one_cycle, cosine), at milestones, never"
    )
    warmup: int | None = Field(
        None, ge=0, description="steps of rising learning rate; none: 30 % of the steps for one_cycle, 0 for the others"
    )
    milestones: tuple[int, ...] = Field((), description="steps at which the schedule 'steps' multiplies by gamma")
    gamma: float = Field(0.1, gt=0, description="factor at each milestone")
    clip: Clip = Field(
        "group",
        description="whose gradient norm is clipped: nobody's, all together, each parameter group "
        "(so that auxiliary heads cannot take the detector's share), each tensor",
    )
    clip_norm: float = Field(10.0, gt=0, description="largest gradient norm (L2)")
    ema: float = Field(0.0, ge=0, lt=1, description="decay a step of the averaged weights; 0: no averaging")

    precision: Literal["no", "bf16", "fp16"] = Field("no", description="mixed precision; fp16 needs a GPU")
    device: Literal["auto", "cpu", "cuda", "mps"] = Field("auto", description="auto: a GPU if there is one")
    threads: int = Field(0, ge=0, description="CPU threads of a process; 0: what torch chooses")
    workers: int = Field(2, ge=0, description="processes that load images, for each training process")
    seed: int = Field(0, ge=0, lt=2**32, description="seeds the order of the images and every random draw")
    deterministic: bool = Field(False, description="slower GPU kernels that give the same result every time")

    log_every: int = Field(20, ge=1, description="steps between rows of metrics.csv")
    eval_every: int = Field(250, ge=0, description="steps between evaluations; 0: at the end only")
    save_every: int = Field(100, ge=0, description="steps between checkpoints; 0: at evaluations and the end only")
    trackers: tuple[Literal["wandb", "mlflow"], ...] = Field((), description="trackers beside CSV and TensorBoard")

    @model_validator(mode="after")
    def _fields_agree(self) -> FitConfig:
        if self.warmup is not None and self.warmup >= self.steps:
            raise ValueError(f"warmup must be shorter than steps ({self.steps}); got {self.warmup}")
        if self.batch_size % self.accumulate:
            raise ValueError(f"batch_size must be a multiple of accumulate ({self.accumulate}); got {self.batch_size}")
        if (self.schedule == "steps") != bool(self.milestones):
            raise ValueError("the schedule 'steps' needs milestones, and no other schedule takes them")
        if list(self.milestones) != sorted(set(self.milestones)) or any(
            not 0 < m < self.steps for m in self.milestones
        ):
            raise ValueError(f"milestones must rise and lie between 0 and steps ({self.steps}); got {self.milestones}")
        return self
