"""The label-to-prototype assignment as a linear assignment problem, with a certificate (paper: Eq. 8-9).

``assign`` solves it for class means and prototypes, ``solve`` for any cost matrix; ``align`` also rotates the
prototypes. ``linear_sum_assignment`` is SciPy's function. They can be used without the rest of the package.
"""

from fastproto.assignment.api import assign, solve
from fastproto.assignment.background import in_background
from fastproto.assignment.certificate import Assignment
from fastproto.assignment.procrustes import Alignment, align
from fastproto.assignment.scipy_form import linear_sum_assignment

__all__ = ["Alignment", "Assignment", "align", "assign", "in_background", "linear_sum_assignment", "solve"]
