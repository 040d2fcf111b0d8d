"""WS-JDS: Shen, Ji, Wang, Wu and Cao, "Cyclic Guidance for Weakly Supervised Joint Detection and Segmentation",
CVPR 2019.
"""

from boxcycle.methods.ws_jds.train import Config, build, train

__all__ = ["Config", "build", "train"]
