"""The heads that the prototype head is compared with, each with the same interface."""

from fastproto.baselines.softmax import SoftmaxHead

__all__ = ["SoftmaxHead"]
