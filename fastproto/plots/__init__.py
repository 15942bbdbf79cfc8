"""Pictures of a run and of prototypes, drawn by matplotlib without a display.

Files are written atomically; the suffix is the format (none: PNG). Matplotlib is imported by the first picture, and its
objects are typed Any. Accuracies and shares in metrics.csv are fractions.
"""

from fastproto.plots.confusion import draw_confusion
from fastproto.plots.learning_curves import draw_changed, draw_curves
from fastproto.plots.vectors import draw_cosines, draw_prototypes, draw_sphere

__all__ = ["draw_changed", "draw_confusion", "draw_cosines", "draw_curves", "draw_prototypes", "draw_sphere"]
