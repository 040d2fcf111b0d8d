"""MTL-SSL: Lee, Na and Kim, "Multi-Task Self-Supervised Object Detection via Recycling of Bounding Box Annotations",
CVPR 2019.
"""

from boxcycle.methods.mtl_ssl.train import Config, build, train

__all__ = ["Config", "build", "train"]
