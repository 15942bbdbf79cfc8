"""Making, measuring, saving and loading prototypes: C unit vectors spread evenly on the sphere (paper: Section 3.2)."""

from fastproto.prototypes.bounds import max_cosine_bound, uniformity_bound
from fastproto.prototypes.closed_forms import closed_form
from fastproto.prototypes.codes import binary_code, code_capacity
from fastproto.prototypes.estimate import METHODS, OBJECTIVES, estimate_prototypes
from fastproto.prototypes.files import Prototypes, check_shape, load_prototypes
from fastproto.prototypes.quality import Quality, measure_prototypes
from fastproto.prototypes.words import load_word_vectors
from fastproto.support.cache_folder import cache_folder

__all__ = [
    "METHODS",
    "OBJECTIVES",
    "Prototypes",
    "Quality",
    "binary_code",
    "cache_folder",
    "check_shape",
    "closed_form",
    "code_capacity",
    "estimate_prototypes",
    "load_prototypes",
    "load_word_vectors",
    "max_cosine_bound",
    "measure_prototypes",
    "uniformity_bound",
]
