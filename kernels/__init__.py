"""Raw Triton kernels of fastproto: tensors in, tensors out; no autograd, no state, no host synchronisation."""
