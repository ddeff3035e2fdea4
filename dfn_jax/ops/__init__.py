"""The mathematics of dynamic filter networks: pure functions on arrays."""

from dfn_jax.ops.constraints import add_dynamic_bias, separable_filters, smoothness_penalty, softmax_filters
from dfn_jax.ops.dynamic_conv import dynamic_conv, dynamic_separable_conv
from dfn_jax.ops.dynamic_local import dynamic_local_filter
from dfn_jax.ops.flow import expected_displacement, filter_confidence, filter_entropy, tap_offsets

__all__ = [
    "add_dynamic_bias",
    "dynamic_conv",
    "dynamic_local_filter",
    "dynamic_separable_conv",
    "expected_displacement",
    "filter_confidence",
    "filter_entropy",
    "separable_filters",
    "smoothness_penalty",
    "softmax_filters",
    "tap_offsets",
]
