"""boxcycle: train object detectors with too few labels.

The names below are imported when they are first asked for, so that ``import boxcycle`` is immediate.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from boxcycle.config import load_config as load_config
    from boxcycle.data.read import read_split as read_split
    from boxcycle.methods import METHODS as METHODS
    from boxcycle.methods.mtl_ssl.recycle import recycle as recycle

__version__ = "0.1.0"

_HOME = {
    "METHODS": "boxcycle.methods",
    "load_config": "boxcycle.config",
    "read_split": "boxcycle.data.read",
    "recycle": "boxcycle.methods.mtl_ssl.recycle",
}
__all__ = ["METHODS", "__version__", "load_config", "read_split", "recycle"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'boxcycle' has no attribute '{name}'")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
