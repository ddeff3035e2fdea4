"""The paper's networks in PyTorch, as well as we can write them: the peer of `benchmarks.train_step`.

Written as functions over the parameters of our own networks. Like ours, they encode all known frames at once, and
decode only where a prediction is used; images and kernels lie in memory with channels last, as oneDNN likes them.
"""

import torch
from torch.nn import functional as F

from benchmarks.torch_ops import local_filter

Params = dict


def from_jax(params: Params) -> Params:
    """Our parameters as leaves of PyTorch's graph, convolutions' kernels as [out, in, kh, kw]."""
    return {name: from_jax(value) if isinstance(value, dict) else _leaf(value) for name, value in params.items()}


def _leaf(value) -> torch.Tensor:
    tensor = torch.tensor(value)
    if tensor.ndim == 4:
        tensor = tensor.permute(3, 2, 0, 1).contiguous(memory_format=torch.channels_last)
    elif tensor.ndim == 3:  # one bias per position
        tensor = tensor.permute(2, 0, 1)[None].contiguous(memory_format=torch.channels_last)
    return tensor.requires_grad_()


def images(values) -> torch.Tensor:
    """NHWC as NCHW that lies in memory with channels last."""
    return torch.tensor(values).permute(0, 3, 1, 2)


def video_loss(params: Params, frames: torch.Tensor, *, known: int, window: int, squared: bool) -> torch.Tensor:
    """The loss of a rollout.

    Args:
        params: of `VideoDFN`, by `from_jax`.
        frames: [T, N, 1, H, W].
        known: frames that are read.
        window: frames read at a time.
        squared: squared error, or else binary cross-entropy; mean over everything.

    Returns:
        A scalar.
    """
    generator = params["generator"]
    windows = torch.cat([frames[t : known - window + 1 + t] for t in range(window)], dim=2)
    codes = _encode(generator["encoding"], windows.flatten(0, 1)).unflatten(0, windows.shape[:2])
    hidden = torch.zeros_like(codes[0, :1])
    for code in codes:
        hidden = code + _transition(generator, hidden)
    newest, loss = [frames[t] for t in range(known - window, known)], 0.0
    for time in range(known, len(frames)):
        if time > known:
            code = _encode(generator["encoding"], torch.cat(newest, dim=1))
            hidden = code + _transition(generator, hidden)
        theta = _decode(generator["decoding"], hidden)
        predicted = _filter(newest[-1], theta, square=True)
        newest = [*newest[1:], predicted]
        loss = loss + _measure(predicted, frames[time], squared)
    return loss / (len(frames) - known)


def stereo_loss(params: Params, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """The loss of stereo prediction, for parameters of `StereoDFN` and images [N, 1, H, W]."""
    generator = params["StereoGenerator_0"]
    theta = _decode(generator["Decoder_0"], _encode(generator["Encoder_0"], left))
    return F.mse_loss(_filter(left, theta, square=False), right)


def _measure(predicted: torch.Tensor, target: torch.Tensor, squared: bool) -> torch.Tensor:
    if squared:
        return F.mse_loss(predicted, target)
    epsilon = torch.finfo(torch.float32).eps
    return F.binary_cross_entropy(predicted.clamp(epsilon, 1 - epsilon), target)


def _conv(x: torch.Tensor, layer: Params, stride: int = 1) -> torch.Tensor:
    kernel, bias = layer["Conv_0"]["kernel"], layer["Conv_0"].get("bias")
    x = F.conv2d(x, kernel, bias, stride=stride, padding=kernel.shape[-1] // 2)
    return x + layer["position_bias"] if "position_bias" in layer else x


def _layers(part: Params) -> list[Params]:
    return [part[name] for name in sorted(part)]


def _encode(part: Params, x: torch.Tensor) -> torch.Tensor:
    for index, layer in enumerate(_layers(part)):
        x = F.leaky_relu(_conv(x, layer, stride=2 if index == 1 else 1))
    return x


def _transition(generator: Params, hidden: torch.Tensor) -> torch.Tensor:
    for name in ("transition_0", "transition_1"):
        hidden = F.leaky_relu(_conv(hidden, generator[name]))
    return hidden


def _decode(part: Params, x: torch.Tensor) -> torch.Tensor:
    """The layers before the upsampling are those whose images are as small as the code."""
    layers = _layers(part)
    coarse = 1 if len(layers) == 5 else 2
    for index, layer in enumerate(layers[:-1]):
        x = F.interpolate(x, scale_factor=2) if index == coarse else x
        x = F.leaky_relu(_conv(x, layer))
    return _conv(x, layers[-1])


def _filter(image: torch.Tensor, theta: torch.Tensor, *, square: bool) -> torch.Tensor:
    """Softmaxed filters, square or one row high, on an image to which the last channel, if over, is added first."""
    taps = theta.shape[1]
    side = int(taps**0.5) if square else taps - 1
    size = (side, side) if square else (1, side)
    if taps > size[0] * size[1]:
        image, theta = image + theta[:, -1:], theta[:, :-1]
    return local_filter(image, theta.softmax(dim=1), kernel_size=size)
