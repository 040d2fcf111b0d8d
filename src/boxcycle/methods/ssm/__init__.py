"""SSM: Wang, Yan, Zhang, Zhang and Lin, "Towards Human-Machine Cooperation: Self-Supervised Sample Mining for Object
Detection", CVPR 2018.
"""

from boxcycle.methods.ssm.train import Config, build, train

__all__ = ["Config", "build", "train"]
