"""The public functions; each op has a file of its own in :mod:`fastproto.ops`.

Ops are registered operators (``torch.ops.fastproto.*``), opaque to ``torch.compile``. The losses compute their gradient
in the forward pass.
"""

from fastproto.ops.gaussian_potential import gaussian_potential
from fastproto.ops.ipm_loss import ipm_loss
from fastproto.ops.nearest_prototypes import nearest_prototypes
from fastproto.ops.power_rule import power_for
from fastproto.ops.uniformity_loss import uniformity_loss
from fastproto.ops.update_class_means import update_class_means, update_class_means_
from fastproto.support.error_flags import check_batches

__all__ = [
    "check_batches",
    "gaussian_potential",
    "ipm_loss",
    "nearest_prototypes",
    "power_for",
    "uniformity_loss",
    "update_class_means",
    "update_class_means_",
]
