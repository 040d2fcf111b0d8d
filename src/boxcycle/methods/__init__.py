"""The methods by name. Each module has a ``Config``, ``build(config, class_names)`` and ``train(config)``."""

from boxcycle.methods import detr, mtl_ssl, ssm, supervised

METHODS = {
    "supervised": supervised,
    "mtl_ssl": mtl_ssl,
    "ssm": ssm,
    "detr": detr,
}
