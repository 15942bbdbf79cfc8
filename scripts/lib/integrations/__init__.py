"""Each integration with the real package on the handwritten digits, beside fastproto-train: :mod:`parity` compares."""
