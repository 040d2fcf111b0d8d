"""boxcycle: train object detectors with too few labels."""

__version__ = "0.1.0"
