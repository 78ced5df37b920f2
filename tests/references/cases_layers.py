"""Cases of single layers: convolutions, pooling, normalisation, activations."""

import torch
from torch import nn
from torch.nn import functional

from case import Between, Body, case

# Convolutions


@case("legacy9", shape=(3, 11))
def conv_1d():
    return Body(nn.Sequential(nn.Conv1d(3, 4, 3, stride=2, padding=1), nn.Tanh(), nn.Conv1d(4, 3, 2, dilation=2)), 3 * 4)


@case("legacy11", "dynamo18", shape=(2, 8, 9))
def conv_2d():
    return Body(nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.Tanh(), nn.Conv2d(4, 3, (3, 2), padding=(0, 1))), 3 * 6 * 10)


@case("legacy13", shape=(2, 5, 6, 4))
def conv_3d():
    return Body(nn.Sequential(nn.Conv3d(2, 3, 3, padding=1, stride=(1, 2, 1)), nn.Tanh(), nn.Conv3d(3, 2, 2)), 2 * 4 * 2 * 3)


@case("legacy9", "dynamo18", shape=(4, 6, 6))
def conv_groups():
    return Body(nn.Sequential(nn.Conv2d(4, 6, 3, groups=2, padding=1), nn.Tanh(), nn.Conv2d(6, 6, 3, groups=3, stride=2)), 6 * 4)


@case("legacy13", "dynamo18", shape=(3, 7, 7))
def conv_depthwise():
    return Body(
        nn.Sequential(nn.Conv2d(3, 6, 3, groups=3, padding=1), nn.Tanh(), nn.Conv2d(6, 6, 3, groups=6, stride=2, padding=1), nn.Conv2d(6, 2, 1)),
        2 * 16,
    )


@case("legacy17", shape=(2, 11, 10))
def conv_dilation():
    return Body(
        nn.Sequential(nn.Conv2d(2, 3, 3, dilation=2, padding=2), nn.Tanh(), nn.Conv2d(3, 2, 3, dilation=(3, 2), stride=2, padding=(1, 2))),
        2 * 4 * 5,
    )


@case("legacy11", "dynamo18", shape=(2, 23, 22))
def conv_stem_7_stride_4():
    # (23 + 6 − 7) leaves 2 rows over and (22 + 6 − 7) leaves 1 column over at stride 4.
    return Body(nn.Conv2d(2, 3, 7, stride=4, padding=3), 3 * 36)


@case("legacy13", shape=(2, 24, 21))
def conv_stem_7_stride_2():
    return Body(nn.Conv2d(2, 3, 7, stride=2, padding=3), 3 * 12 * 11)


@case("legacy17", "dynamo18", shape=(2, 64, 9))
def conv_leftover_3():
    # 64 + 6 − 7 = 63 leaves 3 rows over, more than the padding gives back evenly.
    return Body(nn.Conv2d(2, 2, (7, 3), stride=(4, 3), padding=(3, 0)), 2 * 16 * 3)


@case("legacy9", shape=(1, 19, 17))
def conv_leftover_without_padding():
    return Body(nn.Sequential(nn.Conv2d(1, 2, 3, stride=4, padding=1), nn.Tanh(), nn.Conv2d(2, 3, 2, stride=3)), 3 * 4)


@case("legacy13", shape=(2, 9, 8))
def conv_kernel_smaller_than_stride():
    return Body(nn.Conv2d(2, 4, 1, stride=2), 4 * 5 * 4)


@case("legacy11", "dynamo18", shape=(2, 7, 6))
def conv_padding_reflect():
    return Body(nn.Conv2d(2, 3, 3, padding=(2, 1), padding_mode="reflect"), 3 * 9 * 6)


@case("legacy13", "dynamo18", shape=(2, 7, 6))
def conv_padding_replicate():
    return Body(nn.Conv2d(2, 3, 3, padding=(2, 1), padding_mode="replicate"), 3 * 9 * 6)


@case("legacy11", "dynamo18", shape=(2, 7, 6))
def conv_padding_circular():
    return Body(nn.Conv2d(2, 3, 3, padding=(2, 1), padding_mode="circular"), 3 * 9 * 6)


@case("legacy9", "legacy13", "dynamo18", shape=(2, 7, 8))
def conv_padding_same():
    # The kernel of even length makes the padding asymmetric.
    return Body(nn.Conv2d(2, 3, (3, 4), padding="same"), 3 * 56)


@case("dynamo18", shape=(2, 7, 8))
def conv_padding_same_dilated():
    return Body(nn.Conv2d(2, 3, (3, 2), padding="same", dilation=(2, 3)), 3 * 56)


@case("legacy9", "dynamo18", shape=(3, 4, 5))
def conv_transpose():
    return Body(nn.Sequential(nn.ConvTranspose2d(3, 4, 3, stride=2, padding=1, output_padding=1), nn.Tanh(), nn.Conv2d(4, 2, 3)), 2 * 6 * 8)


@case("legacy13", "dynamo18", shape=(4, 4, 5))
def conv_transpose_groups_dilation():
    return Body(nn.ConvTranspose2d(4, 6, (3, 2), stride=(3, 1), padding=(2, 0), output_padding=(1, 0), groups=2, dilation=(1, 3)), 6 * 9 * 8)


@case("legacy17", shape=(2, 6))
def conv_transpose_1d():
    return Body(nn.ConvTranspose1d(2, 3, 4, stride=2, padding=1, bias=False), 3 * 12)


@case("legacy11", shape=(2, 3, 2, 3))
def conv_transpose_3d():
    return Body(nn.ConvTranspose3d(2, 2, 2, stride=(1, 2, 2)), 2 * 4 * 4 * 6)


# Pooling


@case("legacy9", "dynamo18", shape=(2, 7, 8))
def max_pool_overlapping():
    return Body(nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), nn.MaxPool2d(3, stride=2, padding=1)), 3 * 16)


@case("legacy11", "dynamo18", shape=(2, 8, 10))
def max_pool_dilation_ceil():
    return Body(nn.Sequential(nn.Conv2d(2, 3, 1), nn.MaxPool2d(2, stride=2, dilation=(2, 3), ceil_mode=True)), 3 * 4 * 4)


@case("legacy13", shape=(2, 8, 9))
def max_pool_ceil_padding():
    return Body(nn.Sequential(nn.Conv2d(2, 3, 1), nn.MaxPool2d(3, stride=2, padding=1, ceil_mode=True)), 3 * 5 * 5)


@case("legacy10", shape=(3, 13))
def max_pool_1d():
    return Body(nn.Sequential(nn.Conv1d(3, 4, 3), nn.MaxPool1d(3, stride=1)), 4 * 9)


@case("legacy17", shape=(2, 4, 5, 4))
def max_pool_3d():
    return Body(nn.Sequential(nn.Conv3d(2, 3, 1), nn.MaxPool3d(2, stride=(1, 2, 2), padding=(1, 0, 0))), 3 * 5 * 2 * 2)


@case("legacy9", shape=(2, 7, 8))
def average_pool_exclude_padding():
    return Body(nn.Sequential(nn.Tanh(), nn.AvgPool2d(3, stride=2, padding=1, count_include_pad=False)), 2 * 16)


@case("legacy11", "dynamo18", shape=(2, 7, 8))
def average_pool_include_padding():
    return Body(nn.Sequential(nn.Tanh(), nn.AvgPool2d(3, stride=2, padding=1, count_include_pad=True)), 2 * 16)


@case("legacy13", "dynamo18", shape=(2, 8, 8))
def average_pool_ceil():
    return Body(nn.Sequential(nn.Tanh(), nn.AvgPool2d(3, stride=2, ceil_mode=True, count_include_pad=False)), 2 * 16)


@case("legacy17", shape=(2, 7, 8))
def average_pool_overlapping():
    return Body(nn.Sequential(nn.Tanh(), nn.AvgPool2d((3, 2), stride=1)), 2 * 5 * 7)


@case("legacy13", shape=(3, 12))
def average_pool_1d():
    return Body(nn.Sequential(nn.Tanh(), nn.AvgPool1d(4, stride=3)), 9)


@case("legacy17", shape=(2, 4, 5, 4))
def average_pool_3d():
    return Body(nn.Sequential(nn.Tanh(), nn.AvgPool3d(2, stride=(1, 2, 2), padding=(1, 1, 0), count_include_pad=False)), 2 * 5 * 3 * 2)


@case("legacy9", "legacy13", "dynamo18", shape=(2, 6, 6))
def global_average_pool():
    return Body(nn.Sequential(nn.Conv2d(2, 5, 3), nn.Tanh(), nn.AdaptiveAvgPool2d(1)), 5)


@case("legacy11", "dynamo18", shape=(2, 6, 6))
def global_max_pool():
    return Body(nn.Sequential(nn.Conv2d(2, 5, 3), nn.Tanh(), nn.AdaptiveMaxPool2d(1)), 5)


@case("legacy13", shape=(2, 8, 6))
def adaptive_pools():
    return Body(nn.Sequential(nn.Conv2d(2, 3, 1), nn.AdaptiveAvgPool2d((4, 3)), nn.AdaptiveMaxPool2d((2, 3))), 18)


@case("legacy13", "dynamo18", shape=(2, 6, 6))
def power_pool():
    return Body(nn.Sequential(nn.Conv2d(2, 3, 1), nn.LPPool2d(2, 3, stride=2)), 12)


# Normalisation


@case("legacy9+unfolded", "legacy13+unfolded", "legacy17+unfolded", shape=(2, 6, 6))
def batch_norm():
    return Body(nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 3, 3, bias=False), nn.BatchNorm2d(3)), 12)


@case("legacy11", "dynamo18", shape=(3, 5, 5))
def batch_norm_first():
    return Body(nn.Sequential(nn.BatchNorm2d(3), nn.ReLU(), nn.Conv2d(3, 4, 3)), 36)


@case("legacy13", "dynamo18", shape=(6,))
def batch_norm_features():
    return Body(nn.Sequential(nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 8), nn.BatchNorm1d(8, affine=False), nn.Tanh()), 8)


@case("legacy7+unfolded", shape=(2, 3, 4, 3))
def batch_norm_3d():
    return Body(nn.Sequential(nn.Tanh(), nn.BatchNorm3d(2)), 72)


@case("dynamo18", shape=(6, 4, 4))
def local_response_norm():
    # The legacy exporter writes an If around a Squeeze here; the operator LRN itself is among the handmade cases.
    return Body(nn.Sequential(nn.Conv2d(6, 6, 1), nn.LocalResponseNorm(3, alpha=0.5, beta=0.75, k=1.2)), 96)


@case("legacy9", "legacy11+unfolded", "dynamo18", shape=(8,))
def dropout():
    return nn.Sequential(nn.Dropout(0.3), nn.Linear(8, 12), nn.ReLU(), nn.Dropout(0.5), nn.Linear(12, 5))


# Activations: each between two linear layers.

ACTIVATIONS = {
    "relu": (nn.ReLU(), ["legacy7", "dynamo18"]),
    "leaky_relu": (nn.LeakyReLU(0.2), ["legacy9", "dynamo18"]),
    "elu": (nn.ELU(0.7), ["legacy9", "dynamo18"]),
    "selu": (nn.SELU(), ["legacy11", "dynamo18"]),
    "celu": (nn.CELU(0.6), ["legacy12", "dynamo18"]),
    "sigmoid": (nn.Sigmoid(), ["legacy9"]),
    "hard_sigmoid": (nn.Hardsigmoid(), ["legacy13", "dynamo18"]),
    "hard_swish": (nn.Hardswish(), ["legacy11", "legacy14", "dynamo18"]),
    "tanh": (nn.Tanh(), ["legacy13"]),
    "softplus": (nn.Softplus(), ["legacy9", "dynamo18"]),
    "softplus_beta": (nn.Softplus(beta=2.5), ["legacy13"]),
    "softsign": (nn.Softsign(), ["legacy9", "dynamo18"]),
    "gelu": (nn.GELU(), ["legacy11", "dynamo18", "dynamo20"]),
    "gelu_tanh": (nn.GELU(approximate="tanh"), ["legacy13", "dynamo18", "dynamo20"]),
    "silu": (nn.SiLU(), ["legacy13", "dynamo18"]),
    "mish": (nn.Mish(), ["legacy11", "legacy18", "dynamo18"]),
    "relu6": (nn.ReLU6(), ["legacy9", "legacy13", "dynamo18"]),
    "hard_tanh": (nn.Hardtanh(-0.5, 0.8), ["legacy11"]),
    "hard_shrink": (nn.Hardshrink(0.4), ["legacy13"]),
    "log_sigmoid": (nn.LogSigmoid(), ["legacy11", "dynamo18"]),
    "erf": (torch.erf, ["legacy9", "dynamo18"]),
    "exp": (lambda h: torch.exp(0.5 * h), ["legacy9"]),
    "log": (lambda h: torch.log(h * h + 0.3), ["legacy11"]),
    "sqrt": (lambda h: torch.sqrt(torch.sigmoid(h) + 0.1), ["legacy9", "dynamo18"]),
    "reciprocal": (lambda h: torch.reciprocal(torch.sigmoid(h) + 0.2), ["legacy13", "dynamo18"]),
    "rsqrt": (lambda h: torch.rsqrt(torch.sigmoid(h) + 0.2), ["legacy13"]),
    "pow_2": (lambda h: h**2, ["legacy9", "dynamo18"]),
    "pow_3": (lambda h: h**3, ["legacy13", "dynamo18"]),
    "pow_half": (lambda h: (torch.sigmoid(h) + 0.1) ** 0.5, ["legacy11"]),
    "pow_negative": (lambda h: (torch.sigmoid(h) + 0.4) ** -1.7, ["legacy13", "dynamo18"]),
    "pow_of_tensors": (lambda h: (torch.sigmoid(h) + 0.3) ** torch.tanh(h.flip(1)), ["legacy13"]),
    "pow_of_base": (lambda h: torch.pow(1.7, h), ["legacy13"]),
    "abs": (torch.abs, ["legacy9"]),
    "neg": (lambda h: torch.tanh(-h), ["legacy11"]),
    "clamp": (lambda h: torch.clamp(h, -0.6, 0.9), ["legacy9", "legacy11", "dynamo18"]),
    "clamp_min": (lambda h: torch.clamp(h, min=-0.3), ["legacy11", "dynamo18"]),
    "clamp_max": (lambda h: torch.clamp(h, max=0.3), ["legacy9", "legacy13"]),
    "rounding": (lambda h: 0.2 * h * torch.floor(3 * h) + 0.2 * torch.sign(h) * torch.round(h) * h, ["legacy11", "dynamo18"]),
}

for _name, (_function, _exports) in ACTIVATIONS.items():

    def _build(function=_function):
        return Between(function)

    _build.__name__ = f"activation_{_name}"
    case(*_exports, shape=(6,))(_build)


@case("legacy9", "legacy16", "dynamo18", shape=(3, 4, 4))
def activation_prelu():
    slopes = nn.PReLU(4)
    slopes.weight.data = torch.tensor([0.1, 0.25, 0.4, -0.3])
    return Body(nn.Sequential(nn.Conv2d(3, 4, 1), slopes), 64)


@case("legacy11", shape=(6,))
def activation_prelu_one_slope():
    return Between(nn.PReLU(init=0.3))


@case("legacy13", "dynamo18", shape=(4, 3, 3))
def glu():
    return Body(lambda x: functional.glu(x, dim=1), 18)
