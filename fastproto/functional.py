"""The public functions; each op has a file of its own.

Opaque steps are registered operators (``torch.ops.fastproto.*``), worn by thin ``torch.autograd.Function``s that form
the gradient in the forward pass.
"""

from fastproto.flags import check_batches
from fastproto.ipm import ipm_loss
from fastproto.means import update_class_means, update_class_means_
from fastproto.nearest import nearest_prototypes
from fastproto.potential import gaussian_potential
from fastproto.uniformity import uniformity_loss

__all__ = [
    "check_batches",
    "gaussian_potential",
    "ipm_loss",
    "nearest_prototypes",
    "uniformity_loss",
    "update_class_means",
    "update_class_means_",
]
