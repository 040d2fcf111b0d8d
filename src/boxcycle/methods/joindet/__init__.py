"""JoinDet: pretrains a whole DETR on images alone, by object priors that it finds itself and refines.

Wang et al., "Unsupervised Object Detection Pretraining with Joint Object Priors Generation and Detector Learning",
NeurIPS 2022.
"""

from boxcycle.methods.joindet.train import Config, build, train

__all__ = ["Config", "build", "train"]
