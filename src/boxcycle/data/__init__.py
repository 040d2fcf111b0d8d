"""Data sets: readers and writers of the formats, checks and repairs, splits, transforms, samples, generated scenes."""

from boxcycle.data.check import DataError, Finding
from boxcycle.data.index import Index

__all__ = ["DataError", "Finding", "Index"]
