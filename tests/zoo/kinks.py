"""How far a network's units are from their kinks, in units of what float32 gets wrong there.

At a kink a network has no gradient: what a program gives there is decided by how it rounds, and two right programs differ.
Gradients are therefore compared where every unit is farther from its kink than float32 is from float64.
"""

import torch
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

ATEN = torch.ops.aten


def bounds_of(arguments, names=(1, 2)):
    """The bounds among the positional arguments of a clamp, those that are there."""
    found = [arguments[place] for place in names if len(arguments) > place]
    return [bound for bound in found if isinstance(bound, (int, float))]


# Each function that has kinks at fixed values of its first argument: its arguments -> those values.
POINTWISE = {
    "relu": lambda _: [0.0],
    "leaky_relu": lambda _: [0.0],
    "_prelu_kernel": lambda _: [0.0],
    "abs": lambda _: [0.0],
    "threshold": lambda arguments: [float(arguments[1])],
    "hardtanh": lambda arguments: bounds_of(arguments) or [-1.0, 1.0],
    "hardswish": lambda _: [-3.0, 3.0],
    "hardsigmoid": lambda _: [-3.0, 3.0],
    "clamp": bounds_of,
    "clamp_min": bounds_of,
    "clamp_max": bounds_of,
}


def lead(windows):
    """How much the largest of the last axis leads."""
    if windows.shape[-1] < 2:
        return torch.full(windows.shape[:-1], torch.inf)
    first, second = windows.topk(2, dim=-1).values.unbind(-1)
    return (first - second).nan_to_num(nan=0.0)


def pooled(arguments):
    """The windows of a two-dimensional maximum pooling, on the last axis."""
    value, kernel, stride, padding, dilation, ceil = (*arguments, *(None,) * 6)[:6]
    pair = lambda given, otherwise: list(otherwise) if not given else [given[0], given[-1]]  # noqa: E731
    kernel, padding, dilation = pair(kernel, ()), pair(padding, (0, 0)), pair(dilation, (1, 1))
    stride = pair(stride, kernel)
    above = [size - 1 if ceil else 0 for size in stride]
    value = functional.pad(value, (padding[1], padding[1] + above[1], padding[0], padding[0] + above[0]), value=-torch.inf)
    for axis, (size, step, gap) in enumerate(zip(kernel, stride, dilation)):
        value = value.unfold(2 + axis, (size - 1) * gap + 1, step)[..., ::gap]
    return value.flatten(-2)


class Recorder(TorchDispatchMode):
    """Keeps, of each call with a kink, its first argument and (in float64) how far each element is from the nearest one."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, function, _types, arguments=(), options=None):
        name = function.overloadpacket.__name__
        found = None
        if name.rstrip("_") in POINTWISE and torch.is_floating_point(arguments[0]):
            points = POINTWISE[name.rstrip("_")](arguments)
            distances = [(arguments[0] - point).abs() for point in points]
            found = torch.stack(distances).amin(0) if distances else None
        elif name == "max_pool2d_with_indices":
            found = lead(pooled(arguments))
        elif name == "max" and len(arguments) > 1:
            found = lead(arguments[0].movedim(arguments[1], -1))
        if found is not None:
            # Exactly at a kink is what the network always gives there (the zeros of an earlier relu, and ties among them), not chance.
            found = torch.where(found > 0, found, torch.inf)
            self.seen.append((arguments[0].detach().double().clone(), found.detach().double()))
        return function(*arguments, **(options or {}))


def recorded(module, x):
    with torch.no_grad(), Recorder() as recorder:
        module(x)
    return recorder.seen


def margin(module, exact, x):
    """The smallest distance to a kink over all units, over how far float32 is off in the same tensor.

    `exact` is the module in float64; how far float32 is off is the root mean square over the tensor, the larger of two kinds of kernels.
    Infinite where nothing has a kink.
    """
    reference = recorded(exact, x.double())
    errors = [0.0] * len(reference)
    for kernels in (True, False):
        with torch.backends.mkldnn.flags(enabled=kernels):
            single = recorded(module, x)
        if len(single) != len(reference):
            raise ValueError("float32 and float64 do not run the same operations")
        off = [float((there - here).square().mean().sqrt()) for (there, _), (here, _) in zip(reference, single)]
        errors = [max(pair) for pair in zip(errors, off)]
    least = [float(distances.min()) / error for error, (_, distances) in zip(errors, reference) if error > 0 and distances.numel()]
    return min(least, default=float("inf"))
