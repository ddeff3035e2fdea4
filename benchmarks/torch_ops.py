"""The local filter in PyTorch, through `unfold`: the peer of `benchmarks.ops`, and a part of `torch_networks`."""

import torch
from torch.nn import functional as F


def local_filter(
    images: torch.Tensor, filters: torch.Tensor, *, kernel_size, strides=(1, 1), dilation=(1, 1), upsampling=(1, 1)
) -> torch.Tensor:
    """Filters every position with a filter of its own that the channels share, zeros outside the image.

    Args:
        images: [N, C, H, W].
        filters: [N, K, H', W'], K = kh * kw, both odd.
        kernel_size: (kh, kw).
        strides: (vertical, horizontal), or
        upsampling: (vertical, horizontal), how many times finer than the images the filters are.
        dilation: (vertical, horizontal).

    Returns:
        [N, C, H', W'].
    """
    (samples, channels), taps = images.shape[:2], filters.shape[1]
    padding = [size // 2 * step for size, step in zip(kernel_size, dilation, strict=True)]
    patches = F.unfold(images, kernel_size, dilation=dilation, padding=padding, stride=strides)
    size = [full // factor for full, factor in zip(filters.shape[2:], upsampling, strict=True)]
    patches = patches.view(samples, channels * taps, *size)
    if tuple(upsampling) != (1, 1):
        patches = F.interpolate(patches, scale_factor=tuple(map(float, upsampling)))
    return (patches.view(samples, channels, taps, *filters.shape[2:]) * filters[:, None]).sum(dim=2)
