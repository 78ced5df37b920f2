"""Cases of arithmetic, selection, reductions and the operators that move elements."""

import torch
from torch import nn
from torch.nn import functional

from case import Between, Body, case


def parameter(*shape, scale=1.0, shift=0.0):
    return nn.Parameter(scale * torch.randn(*shape) + shift)


class WithParameters(nn.Module):
    """A function of the input and of some parameters."""

    def __init__(self, function, *parameters):
        super().__init__()
        self.function = function
        self.constants = nn.ParameterList(parameters)

    def forward(self, x):
        return self.function(x, *self.constants)


# Arithmetic with broadcasting; the input is split in parts so that both operands depend on it.


@case("legacy7", "legacy13", "dynamo18", shape=(2, 3, 4))
def add_broadcast():
    return Body(WithParameters(lambda x, a: torch.tanh(x + a) + x[:, :1] + x[:, :, :, :1], parameter(3, 1)), 24)


@case("legacy9", "dynamo18", shape=(2, 3, 4))
def sub_broadcast():
    return Body(WithParameters(lambda x, a: torch.tanh(a - x) - x[:, 1:] - (x[:, :, :1] - 2 * x), parameter(2, 1, 4)), 24)


@case("legacy11", "dynamo18", shape=(2, 3, 4))
def mul_broadcast():
    return Body(WithParameters(lambda x, a: x * a * x[:, :, 1:2] * x.mean(dim=(1, 2, 3), keepdim=True), parameter(4)), 24)


@case("legacy13", "dynamo18", shape=(2, 3, 4))
def div_broadcast():
    return Body(WithParameters(lambda x, a: x / (1.5 + a * a) / (1 + x[:, :1] ** 2) + 1 / (2 + x.abs()), parameter(2, 3, 1)), 24)


@case("legacy13", shape=(3, 4))
def broadcast_of_higher_rank():
    # The constant has one axis more than the input, so the input itself is broadcast.
    return Body(WithParameters(lambda x, a: torch.tanh(x.unsqueeze(1) * a) + x.unsqueeze(1), parameter(1, 5, 3, 4)), 60)


@case("legacy10", "legacy13", "dynamo18", shape=(2, 3, 4))
def maximum_minimum():
    return Body(WithParameters(lambda x, a: torch.maximum(x, a) + torch.minimum(x[:, :1], x.flip(2)), parameter(3, 1)), 24)


@case("legacy13", "dynamo18", shape=(6,))
def square_of_itself():
    return Between(lambda h: h * h + h + h / (1 + h * h))


@case("legacy9", "legacy16", "dynamo18", shape=(2, 3, 4))
def where_broadcast():
    return Body(
        WithParameters(
            lambda x, a: torch.where(x > 0.1, torch.tanh(x) * 2, a * x[:, :1]) + torch.where(x[:, :, :1] < 0, x, torch.zeros_like(x)),
            parameter(3, 1),
        ),
        24,
    )


@case("legacy11", "dynamo18", shape=(5, 4))
def masked_fill():
    def function(x):
        mask = torch.tensor([[True, False, False, True]])
        return functional.softmax(x.masked_fill(mask, -1e4), dim=-1)

    return Body(function, 20)


# Matrix products


@case("legacy7", "dynamo18", shape=(7,))
def mlp_without_bias():
    return nn.Sequential(nn.Linear(7, 9, bias=False), nn.ReLU(), nn.Linear(9, 5, bias=False))


@case("legacy9", "dynamo18", shape=(4, 6))
def linear_on_sequence():
    return Body(nn.Sequential(nn.Linear(6, 7), nn.Tanh(), nn.Linear(7, 3)), 12)


@case("legacy11", "dynamo18", shape=(2, 5, 4))
def matmul_both_operands():
    def function(x):
        scores = torch.matmul(x, x.transpose(-1, -2)) / 2
        return torch.matmul(functional.softmax(scores, dim=-1), torch.tanh(x))

    return Body(function, 40)


@case("legacy13", "dynamo18", shape=(2, 5, 4))
def matmul_broadcast():
    return Body(
        WithParameters(
            lambda x, a, b, v: torch.matmul(torch.matmul(a, torch.tanh(x)), b) + torch.matmul(x, v).mean(dim=2, keepdim=True).unsqueeze(3),
            parameter(3, 5),
            parameter(2, 4, 6),
            parameter(4),
        ),
        36,
    )


@case("legacy13", "dynamo18", shape=(6,))
def matmul_of_vector():
    return Body(WithParameters(lambda x, v, a: torch.cat([torch.matmul(x, v).unsqueeze(1), torch.tanh(x @ a)], 1), parameter(6), parameter(6, 3)), 4)


@case("legacy13", "dynamo18", shape=(3, 4))
def matmul_operand_without_batch():
    # [2, 5, 3] × [n, 1, 3, 4]: the batch axis comes from the right operand alone, and its axis of length 1 is stretched.
    return Body(WithParameters(lambda x, a: torch.matmul(a, torch.tanh(x).unsqueeze(1)), parameter(2, 5, 3)), 40)


@case("legacy13", "dynamo18", shape=(4, 5))
def batch_matmul():
    return Body(lambda x: torch.bmm(torch.tanh(x), x.transpose(1, 2)), 16)


@case("legacy11", shape=(6,))
def addmm():
    return Body(WithParameters(lambda x, a, c: torch.addmm(c, x, a, beta=0.5, alpha=1.5), parameter(6, 7), parameter(7)), 7)


# Reductions


@case("legacy9", "legacy13", "dynamo18", shape=(3, 4, 5))
def reduce_sum():
    return Body(lambda x: torch.cat([torch.tanh(x).sum(dim=(2, 3)), (x * x).sum(dim=2).flatten(1), x.sum(dim=-1, keepdim=True).flatten(1)], 1), 30)


@case("legacy9", "legacy17", "legacy18", "dynamo18", shape=(3, 4, 5))
def reduce_mean():
    return Body(lambda x: torch.tanh(x).mean(dim=(1, 3)) * x.mean(dim=2, keepdim=True).mean(dim=(1, 2, 3)).unsqueeze(1) + (x * x).mean(dim=(-1, 1)), 4)


@case("legacy9", "legacy13", "dynamo18", shape=(3, 4, 5))
def reduce_max():
    return Body(lambda x: torch.cat([x.max(dim=2).values.flatten(1), x.amax(dim=(1, 3)), (x - x.amax(dim=1, keepdim=True)).flatten(1)], 1), 79)


@case("legacy11", "dynamo18", shape=(3, 4, 5))
def reduce_min():
    return Body(lambda x: torch.cat([x.min(dim=3).values.flatten(1), x.amin(dim=(2, 3)), (x * x.amin(dim=-1, keepdim=True)).flatten(1)], 1), 75)


@case("legacy9", "legacy13", "dynamo18", shape=(3, 4))
def reduce_norm_1():
    return Body(lambda x: torch.cat([x.norm(p=1, dim=2), x.norm(p=1, dim=1, keepdim=True).flatten(1)], 1), 7)


@case("legacy9", "legacy13", "dynamo18", shape=(3, 4))
def reduce_norm_2():
    return Body(lambda x: torch.cat([x.norm(dim=(1, 2)).unsqueeze(1), functional.normalize(x, dim=1).flatten(1)], 1), 13)


@case("legacy11", "legacy13", "legacy18", "dynamo18", shape=(3, 4, 2))
def reduce_log_sum_exp():
    return Body(lambda x: torch.cat([x.logsumexp(dim=2).flatten(1), x.logsumexp(dim=(1, 3)), 3 * x.logsumexp(dim=1, keepdim=True).flatten(1)], 1), 18)


@case("legacy9", "dynamo18", shape=(3, 4))
def reduce_prod():
    return Body(lambda x: torch.cat([x.prod(dim=2), (x + 0.5).prod(dim=1, keepdim=True).flatten(1)], 1), 7)


@case("legacy13", "dynamo18", shape=(3, 6))
def standard_deviation():
    return Body(lambda x: torch.cat([x.std(dim=2), x.var(dim=(1, 2), unbiased=False).unsqueeze(1)], 1), 4)


# Softmax in the middle


@case("legacy9", "legacy11", "legacy13", "dynamo18", shape=(3, 4, 5))
def softmax_last_axis():
    return Body(lambda x: functional.softmax(2 * x, dim=-1) * x, 60)


@case("legacy9", "legacy12", "legacy13", "dynamo18", shape=(3, 4, 5))
def softmax_inner_axis():
    return Body(lambda x: functional.softmax(x, dim=1) * x + functional.softmax(3 * x, dim=2), 60)


@case("legacy9", "legacy13", "dynamo18", shape=(3, 4, 5))
def log_softmax_axes():
    return Body(lambda x: functional.log_softmax(x, dim=2) * x + functional.log_softmax(x, dim=-1), 60)


# Moving elements


@case("legacy9", "dynamo18", shape=(2, 3, 4))
def flatten_reshape():
    return Body(lambda x: torch.tanh(torch.flatten(x, 2).reshape(-1, 4, 6).view(x.size(0), 3, 2, 4)).flatten(1, 2), 24)


@case("legacy9", "legacy13", "dynamo18", shape=(6, 4, 4))
def shape_arithmetic():
    def function(x):
        batch, channels, height, width = x.shape
        grouped = x.view(batch, 2, channels // 2, height, width).transpose(1, 2).contiguous().view(batch, -1, height, width)
        return torch.tanh(grouped) * x

    return Body(function, 96)


@case("legacy11", "legacy13", "dynamo18", shape=(1, 3, 4))
def squeeze_unsqueeze():
    return Body(lambda x: torch.tanh(x.squeeze(1)).unsqueeze(2).unsqueeze(-1) * x.unsqueeze(3).permute(0, 2, 1, 4, 3), 12)


@case("legacy9", "dynamo18", shape=(2, 3, 4))
def transpose_permute():
    return Body(lambda x: torch.tanh(x.permute(0, 3, 1, 2)).transpose(1, 3).transpose(1, 2) * x.transpose(2, 3).reshape(x.size(0), 3, 2, 4).permute(0, 2, 1, 3), 24)


@case("legacy9", "legacy13", "dynamo18", shape=(4, 3, 3))
def concat_split():
    def function(x):
        first, second = torch.split(x, [1, 3], dim=1)
        left, middle, right = torch.chunk(second, 3, dim=3)
        return torch.cat([torch.tanh(first).flatten(1), right.flatten(1), (left * middle).flatten(1), first.flatten(1)], dim=1)

    return Body(function, 36)


@case("legacy13", "dynamo18", shape=(6, 3))
def split_unused():
    # The middle part is never used: its gradient is zero.
    return Body(lambda x: torch.split(x, 2, dim=1)[0] * torch.split(x, 2, dim=1)[2], 6)


@case("legacy10", "legacy13", "dynamo18", shape=(3, 7, 8))
def slice_steps():
    return Body(lambda x: torch.cat([x[:, 1:, ::2, 1:7:3].flatten(1), x.flip(3)[:, :, 2:5, :-5].flatten(1), x[:, :, -2:, 3:].flatten(1)], 1), 73)


@case("legacy11", "dynamo18", shape=(3, 4, 5))
def flip_roll():
    return Body(lambda x: torch.tanh(x.flip(2, 3)) * x + torch.roll(x, shifts=(1, -2), dims=(2, 3)), 60)


@case("legacy9", "legacy13", "dynamo18", shape=(5, 4))
def gather_indices():
    indices = torch.tensor([3, 0, 0, 4])
    return Body(lambda x: torch.cat([x.index_select(1, indices).flatten(1), torch.tanh(x[:, 2]), x[:, :, -1]], 1), 25)


@case("legacy9", "legacy13", shape=(4, 5))
def gather_of_rank_2():
    # The torch.export-based exporter writes this as GatherND.
    indices = torch.tensor([[0, 3], [2, 0]])
    return Body(lambda x: torch.cat([(torch.tanh(x)[:, indices] * 1.5).flatten(1), x[:, [1, 1]].flatten(1)], 1), 30)


@case("legacy9", "legacy13", "dynamo18", shape=(2, 4, 5))
def pad_constant():
    return Body(lambda x: torch.tanh(functional.pad(x, (1, 2, 0, 1), value=0.5)) + functional.pad(x, (-1, 4, 3, -2)), 2 * 5 * 8)


@case("legacy9", "legacy11", "dynamo18", shape=(2, 4, 5))
def pad_reflect_edge():
    return Body(
        lambda x: torch.tanh(functional.pad(x, (4, 1, 2, 3), mode="reflect")) * functional.pad(x, (2, 3, 4, 1), mode="replicate"), 2 * 9 * 10
    )


@case("legacy9", "legacy13", "dynamo18", shape=(1, 3, 4))
def expand_tile():
    return Body(lambda x: torch.tanh(x.expand(-1, 2, -1, -1)) * x.repeat(1, 2, 1, 1) + x.expand(x.size(0), 2, 3, 4), 24)


@case("legacy13", "dynamo18", shape=(2, 3))
def repeat_every_axis():
    return Body(lambda x: torch.tanh(x).repeat(1, 3, 2), 36)


@case("legacy9", "legacy13", "dynamo18", shape=(6,))
def cast():
    def function(h):
        mask = (h > 0).to(h.dtype)
        return torch.tanh(h.to(torch.float64)).to(h.dtype) * mask - 0.3 * h * (1 - mask)

    return Between(function)


@case("legacy13", "dynamo18", shape=(4, 3))
def stack_unbind():
    def function(x):
        first, second, third, fourth = x.unbind(1)
        return torch.stack([first * second, torch.tanh(third), fourth - first], dim=2)

    return Body(function, 9)


@case("legacy13", "dynamo18", shape=(4, 6, 6))
def pixel_unshuffle_by_hand():
    return Body(lambda x: torch.cat([x[:, :, ::2, ::2], x[:, :, 1::2, ::2], x[:, :, ::2, 1::2], x[:, :, 1::2, 1::2]], 1).tanh(), 144)
