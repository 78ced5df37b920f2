"""What a reference case is: a PyTorch module, the shape of its input, and how it is exported."""

from dataclasses import dataclass, field
from typing import Callable

import torch
from torch import nn

CASES = {}


@dataclass
class Case:
    """One classifier whose gradients are kept.

    `build` makes the module (its weights are drawn after a seed that depends on the name alone).
    `exports` says how it is written: `legacy9` is the TorchScript-based exporter at opset 9, `dynamo18` the torch.export-based one at opset 18;
    `+unfolded` keeps BatchNormalization and constants as they are in the module.
    """

    name: str
    build: Callable[[], nn.Module]
    exports: tuple
    shape: tuple
    classes: int = 5
    kind: str = "normal"
    losses: tuple = ("cross-entropy",)
    pinned: bool = False
    options: dict = field(default_factory=dict)


def case(*exports, shape, **options):
    """Registers the function below it, which builds the module, as the case of its name."""

    def register(build):
        name = build.__name__
        assert name not in CASES, name
        CASES[name] = Case(name, build, exports, tuple(shape), **options)
        return build

    return register


class Body(nn.Module):
    """A function, or several modules in a row, then flatten and a linear layer to the logits."""

    def __init__(self, body, features, classes=5):
        super().__init__()
        self.body = body if isinstance(body, nn.Module) else Function(body)
        self.head = nn.Linear(features, classes)

    def forward(self, x):
        return self.head(torch.flatten(self.body(x), 1))


class Function(nn.Module):
    """A function as a module."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


class Between(nn.Module):
    """Linear, a function, linear: the function sees values of both signs and of a common size."""

    def __init__(self, function, features=6, width=8, classes=5):
        super().__init__()
        self.first = nn.Linear(features, width)
        self.function = function if isinstance(function, nn.Module) else Function(function)
        self.last = nn.Linear(width, classes)

    def forward(self, x):
        return self.last(self.function(2 * self.first(x)))


def input_of(case, generator):
    """Three samples: normal numbers, integers from −3 to 3 with many ties and zeros, or normal numbers with one sample all zero."""
    shape = (3, *case.shape)
    if case.kind == "integers":
        return torch.randint(-3, 4, shape, generator=generator).float()
    x = torch.randn(shape, generator=generator)
    if case.kind == "zero-sample":
        x[1] = 0
    return x


def randomise(module, generator):
    """Gives normalisation layers statistics and weights as training would: none is 0 or 1, no variance is near 0."""
    for layer in module.modules():
        if isinstance(layer, (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)):
            layer.running_mean.copy_(0.3 * torch.randn(layer.running_mean.shape, generator=generator))
            layer.running_var.copy_(0.5 + torch.rand(layer.running_var.shape, generator=generator))
            if layer.affine:
                layer.weight.data.copy_(0.6 + 0.8 * torch.rand(layer.weight.shape, generator=generator))
                layer.bias.data.copy_(0.3 * torch.randn(layer.bias.shape, generator=generator))
