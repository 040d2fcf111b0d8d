"""The methods by name. Each module has a ``Config``, ``build(config, class_names)`` and ``train(config)``."""

from boxcycle.methods import mtl_ssl, supervised, ws_jds

METHODS = {
    "supervised": supervised,
    "mtl_ssl": mtl_ssl,
    "ws_jds": ws_jds,
}
