"""What every detector of the package offers: losses in training, detections in evaluation."""

from __future__ import annotations

from abc import abstractmethod

from torch import Tensor, nn

from boxcycle.types import Detections, Target


class Detector(nn.Module):
    """A module with two named jobs, :meth:`losses` and :meth:`predict`.

    ``loss_weights`` has the keys of the losses; ``watched`` numbers of the last step to look at.
    """

    num_classes: int
    loss_weights: dict[str, float]
    watched: dict[str, Tensor]

    @abstractmethod
    def losses(self, images: list[Tensor], targets: list[Target]) -> dict[str, Tensor]:
        """The unweighted losses of a batch, keys as :attr:`loss_weights`.

        Shapes: images [3, H_i, W_i] in [0, 1]; targets in the image frame.
        """

    @abstractmethod
    def predict(self, images: list[Tensor]) -> list[Detections]:
        """Detections of each image, best first, image frame. Shapes: images [3, H_i, W_i] in [0, 1]."""

    def forward(
        self, images: list[Tensor], targets: list[Target] | None = None
    ) -> dict[str, Tensor] | list[Detections]:
        """:meth:`losses` in training, :meth:`predict` in evaluation: what process wrappers and exporters call."""
        if not self.training:
            return self.predict(images)
        if targets is None:
            raise ValueError("a detector in training mode needs targets; call predict(images), or eval() first")
        return self.losses(images, targets)
