"""FGSM, FGM and PGD for ℓ∞, ℓ2 and ℓ1, written from their definitions in PyTorch: the reference that mohs's own attacks are compared with.

x is [n, …] in [0, 1], y [n]; every attack ascends the summed cross-entropy, runs all its steps on every sample, and gives the last iterate.
Nothing is random.
The type of x decides the precision; projections are solved in float64 in either case.
"""

import math

import torch
from torch.nn import functional


def gradient(model, x, y):
    """d(sum of cross-entropies)/dx."""
    x = x.detach().clone().requires_grad_(True)
    functional.cross_entropy(model(x), y, reduction="sum").backward()
    return x.grad


def norm(delta, kind):
    """The norm of each sample."""
    flat = delta.flatten(1)
    return {"linf": flat.abs().amax(1), "l2": flat.norm(dim=1), "l1": flat.abs().sum(1)}[kind]


def per_sample(values, like):
    return values.reshape(-1, *[1] * (like.dim() - 1))


def unit_l2(g):
    """g/‖g‖₂ of each sample, 0 where g is 0; scaled by its largest element first, so that squares of small gradients do not vanish."""
    largest = per_sample(norm(g, "linf"), g)
    scaled = g / torch.where(largest > 0, largest, torch.ones_like(largest))
    length = per_sample(norm(scaled, "l2"), g)
    return scaled / torch.where(length > 0, length, torch.ones_like(length))


def largest_alone(g):
    """The sign of the (first) largest |g| of each sample at its place, 0 elsewhere."""
    flat = g.flatten(1)
    place = flat.abs().argmax(1, keepdim=True)
    return torch.zeros_like(flat).scatter(1, place, flat.gather(1, place).sign()).view_as(g)


def sparse_l1(g, x):
    """The steepest ℓ1 step inside the bounds: signs of the k = ⌈d/100⌉ largest |g| among the coordinates that can move, divided by their number."""
    flat, position = g.flatten(1), x.flatten(1)
    k = max(1, math.ceil(flat.shape[1] / 100))
    movable = ((flat > 0) & (position < 1)) | ((flat < 0) & (position > 0))
    places = torch.where(movable, flat.abs(), torch.zeros_like(flat)).topk(k, dim=1).indices
    chosen = torch.zeros_like(flat).scatter(1, places, 1.0) * movable
    number = chosen.sum(1, keepdim=True).clamp(min=1)
    return (chosen * flat.sign() / number).view_as(g)


def project_linf(v, x, epsilon):
    return torch.minimum(torch.maximum(v, x - epsilon), x + epsilon).clamp(0, 1)


def bisect(value_at, low, high):
    """The argument in [low, high] of each sample at which the increasing function `value_at` reaches 0, to the last bit."""
    for _ in range(200):
        middle = (low + high) / 2
        above = value_at(middle) > 0
        low, high = torch.where(above, low, middle), torch.where(above, middle, high)
    return low


def project_l2(v, x, epsilon):
    """The point nearest to v in the ℓ2 ball around x and [0, 1].

    By the conditions of Karush, Kuhn and Tucker it is clip(x + t·(v − x)) for the largest t ≤ 1 that lies in the ball.
    """
    kind, v, x = v.dtype, v.double(), x.double()

    def point(t):
        return (x + per_sample(t, x) * (v - x)).clamp(0, 1)

    ones = torch.ones(len(x), dtype=torch.float64)
    t = bisect(lambda t: norm(point(t) - x, "l2") - epsilon, 0 * ones, ones)
    inside = norm(point(ones) - x, "l2") <= epsilon
    return point(torch.where(inside, ones, t)).to(kind)


def project_l1(v, x, epsilon):
    """The point nearest to v in the ℓ1 ball around x and [0, 1]: clip(x + soft(v − x, λ)) for the smallest λ ≥ 0 that lies in the ball."""
    kind, v, x = v.dtype, v.double(), x.double()
    delta = v - x

    def point(threshold):
        return (x + delta.sign() * (delta.abs() - per_sample(threshold, x)).clamp(min=0)).clamp(0, 1)

    zeros = torch.zeros(len(x), dtype=torch.float64)
    # −λ rather than λ, since `bisect` wants a function that increases.
    threshold = -bisect(lambda t: norm(point(-t) - x, "l1") - epsilon, -norm(delta, "linf"), zeros)
    inside = norm(point(zeros) - x, "l1") <= epsilon
    return point(torch.where(inside, zeros, threshold)).to(kind)


PROJECT = {"linf": project_linf, "l2": project_l2, "l1": project_l1}


def fgsm(model, x, y, epsilon):
    return (x + epsilon * gradient(model, x, y).sign()).clamp(0, 1)


def fgm(model, x, y, kind, epsilon):
    """One step of the whole ε: g/‖g‖₂ for ℓ2, the coordinate of the largest |g| for ℓ1."""
    g = gradient(model, x, y)
    direction = {"linf": torch.sign, "l2": unit_l2, "l1": largest_alone}[kind](g)
    return (x + epsilon * direction).clamp(0, 1)


def pgd(model, x, y, kind, epsilon, steps=10, step_size=None):
    """Projected gradient ascent from the clean sample; the step is 2.5·ε/steps unless given."""
    step_size = 2.5 * epsilon / steps if step_size is None else step_size
    point = x
    for _ in range(steps):
        g = gradient(model, point, y)
        direction = {"linf": lambda: g.sign(), "l2": lambda: unit_l2(g), "l1": lambda: sparse_l1(g, point)}[kind]()
        point = PROJECT[kind](point + step_size * direction, x, epsilon)
    return point
