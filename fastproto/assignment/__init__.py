"""The label-to-prototype assignment as a linear assignment problem, with a certificate (paper: Eq. 8-9).

``assign`` solves it for class means and prototypes, ``solve`` for any cost matrix; ``align`` also rotates the
prototypes. They can be used without the rest of the package.
"""

from fastproto.assignment.api import assign, solve
from fastproto.assignment.background import in_background
from fastproto.assignment.certificate import Assignment
from fastproto.assignment.procrustes import Alignment, align

__all__ = ["Alignment", "Assignment", "align", "assign", "in_background", "solve"]
