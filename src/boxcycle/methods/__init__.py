"""The methods by name. Each module has a ``Config``, ``build(config, class_names)`` and ``train(config)``."""

from boxcycle.methods import detr, joindet, mtl_ssl, ssm, supervised, ws_jds

METHODS = {
    "supervised": supervised,
    "mtl_ssl": mtl_ssl,
    "ssm": ssm,
    "ws_jds": ws_jds,
    "detr": detr,
    "joindet": joindet,
}
PRETRAINING = frozenset({"joindet"})  # learn from images alone: `boxcycle pretrain`; the others: `boxcycle train`
