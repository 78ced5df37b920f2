"""Cases of whole small networks, of heads, of pinned batches, and of kinks."""

import torch
from torch import nn
from torch.nn import functional

from case import Body, case

ALL_LOSSES = ("cross-entropy", "margin", "dlr")


@case("legacy9", "legacy13", "dynamo18", shape=(6,), losses=ALL_LOSSES)
def mlp():
    return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 12), nn.Tanh(), nn.Linear(12, 5))


@case("legacy9", "legacy17", "dynamo18", shape=(1, 14, 14), classes=10, losses=ALL_LOSSES)
def lenet():
    return nn.Sequential(
        nn.Conv2d(1, 4, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 6, 3), nn.ReLU(), nn.AvgPool2d(2, ceil_mode=True),
        nn.Flatten(), nn.Linear(54, 16), nn.ReLU(), nn.Linear(16, 10),
    )  # fmt: skip


class BasicBlock(nn.Module):
    """Two convolutions and a shortcut, as in ResNet-18."""

    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.first_norm = nn.BatchNorm2d(outputs)
        self.second = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.second_norm = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x):
        h = functional.relu(self.first_norm(self.first(x)))
        return functional.relu(self.second_norm(self.second(h)) + self.shortcut(x))


class TinyResNet(nn.Module):
    """A stem of kernel 7, stride 2 and an overlapping max pool, then three basic blocks."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 7, stride=2, padding=3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(3, 2, 1))
        self.blocks = nn.Sequential(BasicBlock(4, 4, 1), BasicBlock(4, 8, 2), BasicBlock(8, 8, 1))
        self.pool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(8, 6)

    def forward(self, x):
        return self.fc(torch.flatten(self.pool(self.blocks(self.stem(x))), 1))


@case("legacy9", "legacy11+unfolded", "legacy17", "dynamo18", shape=(3, 17, 18), classes=6, losses=ALL_LOSSES)
def resnet():
    return TinyResNet()


class SqueezeExcitation(nn.Module):
    """Channels weighed by a small network on their means, and a residual sum."""

    def __init__(self, channels, squeezed):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        self.reduce = nn.Conv2d(channels, squeezed, 1)
        self.expand = nn.Conv2d(squeezed, channels, 1)

    def forward(self, x):
        h = functional.hardswish(self.conv(x))
        weights = torch.sigmoid(self.expand(functional.relu(self.reduce(functional.adaptive_avg_pool2d(h, 1)))))
        return x + h * weights


@case("legacy11", "legacy14", "dynamo18", shape=(4, 6, 6))
def squeeze_excitation():
    return Body(nn.Sequential(SqueezeExcitation(4, 2), SqueezeExcitation(4, 3), nn.AdaptiveAvgPool2d(1)), 4)


class Mixer(nn.Module):
    """Token mixing and channel mixing on patches, with one product of two activations (MatMul with both operands varied)."""

    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 4, stride=4)
        self.tokens = nn.Sequential(nn.Linear(4, 6), nn.GELU(), nn.Linear(6, 4))
        self.channels = nn.Sequential(nn.Linear(8, 12), nn.GELU(), nn.Linear(12, 8))
        self.gate = nn.Linear(8, 8)
        self.fc = nn.Linear(8, 5)

    def forward(self, x):
        h = self.patches(x).flatten(2).transpose(1, 2)
        h = h + self.tokens(h.transpose(1, 2)).transpose(1, 2)
        h = h + self.channels(h)
        h = h + torch.matmul(torch.matmul(self.gate(h), h.transpose(1, 2)) / 8, h)
        return self.fc(h.mean(dim=1))


@case("legacy11", "legacy17", "dynamo18", shape=(3, 8, 8))
def mixer():
    return Mixer()


@case("legacy11", "dynamo18", shape=(3, 8, 8))
def densely_connected():
    class Dense(nn.Module):
        """Each layer sees all earlier ones; BatchNorm before each convolution, so that it cannot be folded."""

        def __init__(self):
            super().__init__()
            self.norms = nn.ModuleList([nn.BatchNorm2d(3), nn.BatchNorm2d(5), nn.BatchNorm2d(7)])
            self.convs = nn.ModuleList([nn.Conv2d(3, 2, 3, padding=1), nn.Conv2d(5, 2, 3, padding=1), nn.Conv2d(7, 2, 3, padding=1)])

        def forward(self, x):
            for norm, conv in zip(self.norms, self.convs):
                x = torch.cat([x, conv(functional.relu(norm(x)))], 1)
            return functional.avg_pool2d(x, 4)

    return Body(Dense(), 36)


@case("legacy11", "dynamo18", shape=(3, 12, 12))
def inverted_residual():
    return Body(
        nn.Sequential(
            nn.Conv2d(3, 4, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(4), nn.ReLU6(),
            nn.Conv2d(4, 8, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU6(),
            nn.Conv2d(8, 8, 3, stride=2, padding=1, groups=8, bias=False), nn.BatchNorm2d(8), nn.ReLU6(),
            nn.Conv2d(8, 4, 1, bias=False), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1),
        ),
        4,
    )  # fmt: skip


# Heads


@case("legacy9", "legacy13", "dynamo18", shape=(6,), losses=ALL_LOSSES, options={"softmax_head": True})
def softmax_head():
    return nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 5), nn.Softmax(dim=1))


@case("legacy11", "dynamo18", shape=(6,))
def log_softmax_head():
    return nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 5), nn.LogSoftmax(dim=-1))


@case("legacy13", "dynamo18", shape=(6,), classes=3, losses=ALL_LOSSES)
def three_classes():
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))


@case("legacy13", "dynamo18", shape=(6,), classes=2, losses=("cross-entropy", "margin"))
def two_classes():
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 2))


@case("legacy13", "dynamo18", shape=(6,), options={"labels": "predicted", "beyond_float32": True})
def confident():
    """Each sample is classified rightly with a probability near 1 − 1e-6, and its gradient has a direction all the same.

    In float32, softmax minus one-hot loses nearly every digit here; softplus(logsumexp over i≠y of z_i, minus z_y) is the same loss and loses none.
    """

    last = nn.Linear(16, 5)
    last.bias.data[2] = 14
    return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), last)


# Pinned batches


@case("legacy11", "dynamo18", shape=(2, 6, 6), pinned=True)
def pinned_batch():
    """The batch is pinned in the declared shapes alone."""
    return Body(nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.MaxPool2d(2)), 12)


@case("legacy9", "legacy13", "dynamo18", shape=(4, 6, 6), pinned=True)
def pinned_batch_in_reshape():
    """The batch is pinned in the constants of Reshape, Expand and others too."""

    class Shuffle(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(4, 4, 3, padding=1)
            self.scale = nn.Parameter(torch.randn(1, 2, 1, 1, 1))

        def forward(self, x):
            batch, channels, height, width = x.shape
            h = functional.relu(self.conv(x)).view(batch, 2, channels // 2, height, width)
            h = h * self.scale.expand(batch, 2, 2, height, width)
            return h.transpose(1, 2).reshape(batch, channels, height * width).mean(2)

    return Body(Shuffle(), 4)


# Kinks and ties: the integers from −3 to 3 go straight into the operator.


@case("legacy10", "legacy13", "dynamo18", shape=(2, 6, 6), kind="integers")
def kinks():
    def function(x):
        parts = [
            functional.relu(x), x.abs(), torch.clamp(x, -2, 1), torch.maximum(x, x.flip(3)), torch.minimum(x[:, :1], x), functional.leaky_relu(x, 0.1),
        ]  # fmt: skip
        return torch.cat(parts, 1)

    return Body(function, 12 * 36)


@case("legacy9", "dynamo18", shape=(2, 7, 7), kind="integers")
def kinks_max_pool():
    return Body(nn.Sequential(nn.MaxPool2d(3, stride=2, padding=1), nn.MaxPool2d(2, stride=1)), 18)


@case("legacy13", shape=(2, 6, 6), kind="integers")
def kinks_global_max_pool():
    # The torch.export-based exporter writes ReduceMax, where ties are another matter.
    return Body(lambda x: functional.adaptive_max_pool2d(x, 1), 2)


@case("legacy13", "dynamo18", shape=(2, 6, 6), kind="integers")
def kinks_reduce():
    """`amax` and `amin` share the gradient among all that tie."""
    return Body(lambda x: torch.cat([x.amax(dim=3).flatten(1), x.amin(dim=(1, 2))], 1), 18)


@case("legacy13", shape=(2, 6, 6), kind="integers")
def kinks_activations():
    def function(x):
        parts = [functional.elu(x), functional.selu(x), functional.celu(x, 0.5), functional.hardsigmoid(x), functional.softsign(x)]
        return torch.cat(parts, 1)

    return Body(function, 10 * 36)


@case("legacy14", "dynamo18", shape=(2, 6, 6), kind="integers")
def kinks_hard_swish():
    return Body(nn.Hardswish(), 72)


@case("legacy16", shape=(3, 5), kind="integers")
def kinks_prelu():
    slopes = nn.PReLU(3)
    slopes.weight.data = torch.tensor([0.1, 0.4, -0.3])
    return Body(slopes, 15)


@case("legacy13", "dynamo18", shape=(3, 4), kind="zero-sample")
def kinks_norms():
    """One sample is all zero: the norms have no slope there, and PyTorch takes 0."""
    return Body(lambda x: torch.cat([x.norm(dim=2), x.norm(p=1, dim=1), x.norm(dim=(1, 2)).unsqueeze(1)], 1), 8)


@case("legacy13", "dynamo18", shape=(3, 4), kind="integers")
def kinks_reduce_prod():
    """Products with one factor or several that are 0."""
    return Body(lambda x: torch.cat([x.prod(dim=2), x.prod(dim=1)], 1), 7)


@case("legacy13", "dynamo18", shape=(3, 4), kind="integers")
def kinks_pow():
    return Body(lambda x: torch.cat([x**2, x**3, x**1, x**0], 1), 48)


@case("legacy13", "dynamo18", shape=(6,), kind="zero-sample")
def dead_sample():
    """The gradient of the second sample is exactly zero: every unit is off."""

    class Dead(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(6, 8)
            self.layer.bias.data.fill_(-0.2)
            self.last = nn.Linear(8, 5)

        def forward(self, x):
            return self.last(functional.relu(self.layer(x)))

    return Dead()
