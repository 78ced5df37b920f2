#!/usr/bin/env python3
"""Makes apgd.npz: how the largest loss of APGD rises, step by step, on the adversarially trained digits classifier of models/.

    python3 tests/references/make_apgd.py

APGD is written here from the paper (Croce and Hein 2020, algorithm 1) with the numbers of section 4.1, in float64, from the clean sample, for the
cross-entropy, 100 steps. Three things are those of mohs and are meant to be: the first checkpoint counts rises from the loss at the start, the step
size is halved where the loss rose in at most 75 % of the steps (the paper has: in fewer), and P is the exact projection onto ball and bounds (in
ℓ2 the point z before momentum is rescaled into the ball and clipped, as in the authors' code).

Arrays: `index` int64 [8] (row in digits-test.npz), `x` float32 [8, 1, 8, 8], `y` int64 [8], and `best_linf`, `best_l2` float64 [8, 100]: the largest
cross-entropy of the first 1, 2, … 100 points. The samples are the first ones whose curve is the same to 0.1 % when the same steps are done in float32.

Made with torch 2.15.0.
"""

import pathlib

import numpy as np
import torch
from torch.nn import functional

import attacks
from make_attacks import classifier, test_set

STEPS = 100
SAMPLES = 8
HANGS_ON_ROUNDING = 1e-3
EPSILONS = {"linf": 0.15, "l2": 0.75}
HERE = pathlib.Path(__file__).resolve().parent


def checkpoints(steps):
    """Where the step size may be halved: p₀ = 0, p₁ = 0.22, pⱼ₊₁ = pⱼ + max(pⱼ − pⱼ₋₁ − 0.03, 0.06), in points; with whole numbers of steps."""
    width, places = int(0.22 * steps), []
    at = width
    while at <= steps:
        places.append(at)
        width = max(width - int(0.03 * steps), int(0.06 * steps))
        at += width
    return places


def loss_and_gradient(model, x, y):
    x = x.detach().clone().requires_grad_(True)
    loss = functional.cross_entropy(model(x), y, reduction="none")
    loss.sum().backward()
    return loss.detach(), x.grad


def ascend(model, x, y, kind, epsilon):
    """One sample [1, …]; the largest loss after each point."""
    direction = torch.sign if kind == "linf" else attacks.unit_l2

    def into_ball(v):
        if kind == "linf":
            return attacks.project_linf(v, x, epsilon)
        length = (v - x).norm()
        return (x + (v - x) * min(1.0, epsilon / length.item() if length > 0 else 1.0)).clamp(0, 1)

    places = checkpoints(STEPS)
    size, point, before = 2 * epsilon, x, x
    losses, best_point, best_gradient, best_loss = [], None, None, -np.inf
    last_place, halved_before, best_then = 0, True, None
    curve = []
    for k in range(STEPS):
        loss, g = loss_and_gradient(model, point, y)
        losses.append(loss.item())
        if loss.item() > best_loss:
            best_point, best_gradient, best_loss = point, g, loss.item()
        curve.append(best_loss)
        if k == 0:
            best_then = best_loss
        if k in places:
            rises = sum(losses[i] > losses[i - 1] for i in range(last_place + 1, k + 1))
            stuck = not halved_before and best_loss == best_then
            halved_before = rises <= 0.75 * (k - last_place) or stuck
            if halved_before:
                size, point, g = size / 2, best_point, best_gradient
            last_place, best_then = k, best_loss
        z = into_ball(point + size * direction(g))
        share = 1.0 if k == 0 else 0.75
        moved = attacks.PROJECT[kind](point + share * (z - point) + (1 - share) * (point - before), x, epsilon)
        point, before = moved, point
    return curve


def main():
    torch.set_num_threads(1)
    assert checkpoints(STEPS) == [22, 41, 57, 70, 80, 87, 93, 99]
    model = classifier("adversarial").double()
    x, y = test_set()
    rough = classifier("adversarial")
    right = torch.nonzero(model(x.double()).argmax(1) == y).flatten().tolist()
    index, found = [], {kind: [] for kind in EPSILONS}
    for row in right:
        curves = {}
        for kind, epsilon in EPSILONS.items():
            curves[kind] = np.array(ascend(model, x[row, None].double(), y[row, None], kind, epsilon))
            single = np.array(ascend(rough, x[row, None], y[row, None], kind, epsilon))
            if np.abs(single / curves[kind] - 1).max() > HANGS_ON_ROUNDING:
                print(f"sample {row} hangs on rounding in {kind}")
                break
        else:
            index.append(row)
            for kind, curve in curves.items():
                found[kind].append(curve)
        if len(index) == SAMPLES:
            break
    found = {f"best_{kind}": np.array(curves) for kind, curves in found.items()}
    x, y = x[index], y[index]
    np.savez(HERE / "apgd.npz", index=np.array(index), x=x.numpy(), y=y.numpy(), **found)


if __name__ == "__main__":
    main()
