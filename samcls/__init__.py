"""samcls: Segment Anything features for medical image classification, cached once and trained on many times."""

__version__ = "0.1.0"
