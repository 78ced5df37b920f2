#!/usr/bin/env python3
"""Trains three MNIST networks and holds mohs's attacks on them against those of torchattacks and Foolbox, at equal budgets.

    python3 benches/compare/peers.py --mohs target/release/mohs --train mnist_train.npz --test mnist_test.npz --nets DIR

The networks (two convolutions, two linear layers) are trained normally, with PGD and with TRADES, and written to DIR as ONNX; one that is there already is
taken as it is. The .npz files hold images as `x`, uint8 [n, 28, 28], and labels as `y`.

For each network and norm: the robust accuracy under the attack of mohs and of the peer, the share of samples with the same verdict, how many only one of
them breaks, and seconds: of the whole command for mohs, of the attack alone for the peer. The judge of a peer's points is the network in PyTorch.

Needs torch, torchattacks, foolbox, onnx and onnxscript.
"""

import argparse
import csv
import os
import pathlib
import subprocess
import tempfile
import time

import numpy as np
import torch
from torch import nn
from torch.nn import functional

TRAINED_AT = 0.2
"""The radius (ℓ∞) of PGD and TRADES in training."""

RADII = {"standard": {"linf": 0.05, "l2": 1.0}, "pgd": {"linf": 0.2, "l2": 1.5}, "trades": {"linf": 0.2, "l2": 1.5}}


def network():
    return nn.Sequential(
        nn.Conv2d(1, 16, 4, stride=2, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 4, stride=2, padding=1), nn.ReLU(),
        nn.Flatten(), nn.Linear(32 * 7 * 7, 100), nn.ReLU(), nn.Linear(100, 10),
    )  # fmt: skip


def ascend(x, loss_at, start, radius, steps=7):
    """Steps along the sign of the gradient, within the radius of x and [0, 1]."""
    point = start.clamp(0, 1)
    for _ in range(steps):
        point = point.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(loss_at(point), point)
        point = point.detach() + 0.3 * radius * gradient.sign()
        point = point.clamp(x - radius, x + radius).clamp(0, 1)
    return point.detach()


def loss_of(method, model, x, y, radius):
    if method == "standard":
        return functional.cross_entropy(model(x), y)
    if method == "pgd":
        start = x + radius * (2 * torch.rand_like(x) - 1)
        return functional.cross_entropy(model(ascend(x, lambda p: functional.cross_entropy(model(p), y), start, radius)), y)
    clean = model(x)
    target = clean.detach().log_softmax(1)

    def divergence(point, target):
        return functional.kl_div(model(point).log_softmax(1), target, reduction="batchmean", log_target=True)

    adversarial = ascend(x, lambda p: divergence(p, target), x + 1e-3 * torch.randn_like(x), radius)
    return functional.cross_entropy(clean, y) + 3 * divergence(adversarial, clean.log_softmax(1))


def train(method, x, y, epochs, batch):
    torch.manual_seed(0)
    model = network()
    optimizer = torch.optim.Adam(model.parameters(), 2e-3)
    each = len(x) // batch
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=epochs * each)
    for epoch in range(epochs):
        for step, picked in enumerate(torch.randperm(len(x))[: each * batch].split(batch)):
            # The radius grows through the first two epochs: with all of it at once, the network may end up at one answer for everything.
            radius = TRAINED_AT * min((epoch * each + step + 1) / (2 * each), 1)
            optimizer.zero_grad()
            loss_of(method, model, x[picked], y[picked], radius).backward()
            optimizer.step()
            schedule.step()
    return model.eval()


def as_file(model, path):
    dynamic = {"x": {0: "n"}, "logits": {0: "n"}}
    torch.onnx.export(
        model, (torch.zeros(2, 1, 28, 28),), str(path), input_names=["x"], output_names=["logits"], dynamic_axes=dynamic, opset_version=17, dynamo=False
    )


def mohs(arguments, path, attack, norm, epsilon, right):
    with tempfile.TemporaryDirectory() as folder:
        command = [arguments.mohs, "--quiet", "evaluate", path, "--data", arguments.test, "--limit", str(arguments.samples), "--attack", attack]
        command += ["--norm", norm, "--epsilon", str(epsilon), "--out", folder, "--format", "samples", "--threads", str(arguments.threads)]
        start = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        seconds = time.perf_counter() - start
        with open(pathlib.Path(folder) / "samples.csv", newline="") as file:
            rows = {int(row["index"]): row["robust"] == "true" for row in csv.DictReader(file)}
    robust = np.array([rows[i] for i in range(len(right))])
    return robust & right, seconds


def cases(model, norm, epsilon, steps, queries):
    """An attack of mohs, and the peer that does the same with as many gradients or queries."""
    import foolbox
    import torchattacks

    name = {"linf": "Linf", "l2": "L2"}[norm]
    wrapped = foolbox.PyTorchModel(model, bounds=(0, 1), device="cpu")

    def of_foolbox(attack):
        return lambda x, y: attack(wrapped, x, foolbox.criteria.Misclassification(y), epsilons=epsilon)[1]

    pgd = {"linf": foolbox.attacks.LinfPGD, "l2": foolbox.attacks.L2PGD}[norm]
    single = {"linf": foolbox.attacks.FGSM, "l2": foolbox.attacks.FGM}[norm]
    yield "fgm", "Foolbox FGM", of_foolbox(single())
    yield "pgd:steps=40", "Foolbox PGD", of_foolbox(pgd(steps=40, rel_stepsize=2.5 / 40))
    yield f"apgd:steps={steps}", "torchattacks APGD", torchattacks.APGD(model, norm=name, eps=epsilon, steps=steps, loss="ce")
    yield (
        f"square:queries={queries}",
        "torchattacks Square",
        torchattacks.Square(model, norm=name, eps=epsilon, n_queries=queries, resc_schedule=False),
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mohs", required=True)
    parser.add_argument("--train", required=True)
    parser.add_argument("--test", required=True)
    parser.add_argument("--nets", required=True, type=pathlib.Path)
    parser.add_argument("--samples", type=int, default=500)
    parser.add_argument("--images", type=int, default=20_000, help="how many to train on, from the first")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--steps", type=int, default=100, help="of apgd")
    parser.add_argument("--queries", type=int, default=1000, help="of square")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--only", default="", help="attacks whose name starts so")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)

    def images(path, limit):
        with np.load(path) as data:
            x = torch.tensor(data["x"][:limit].astype(np.float32) / np.float32(255))[:, None]
            return x, torch.tensor(data["y"][:limit].astype(np.int64))

    arguments.nets.mkdir(parents=True, exist_ok=True)
    for method in RADII:
        if not (arguments.nets / f"{method}.onnx").exists():
            start = time.perf_counter()
            model = train(method, *images(arguments.train, arguments.images), arguments.epochs, 128)
            torch.save(model.state_dict(), arguments.nets / f"{method}.pt")
            as_file(model, arguments.nets / f"{method}.onnx")
            print(f"{method}: trained in {time.perf_counter() - start:.0f} s", flush=True)
    x, y = images(arguments.test, arguments.samples)
    print("| network | norm, ε | attack | peer | robust %, mohs | peer | equal % | mohs alone breaks | peer alone | s, mohs | peer |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for method, radii in RADII.items():
        model = network()
        model.load_state_dict(torch.load(arguments.nets / f"{method}.pt"))
        model.eval().requires_grad_(False)
        with torch.no_grad():
            right = (model(x).argmax(1) == y).numpy()
        for norm, epsilon in radii.items():
            for attack, peer, run in cases(model, norm, epsilon, arguments.steps, arguments.queries):
                if not attack.startswith(arguments.only):
                    continue
                ours, seconds = mohs(arguments, str(arguments.nets / f"{method}.onnx"), attack, norm, epsilon, right)
                torch.manual_seed(0)
                start = time.perf_counter()
                adversarial = run(x[right], y[right]).detach()
                theirs_seconds = time.perf_counter() - start
                with torch.no_grad():
                    theirs = right.copy()
                    theirs[right] = (model(adversarial).argmax(1) == y[right]).numpy()
                alone, missed = (theirs & ~ours).sum(), (ours & ~theirs).sum()
                print(
                    f"| {method} ({100 * right.mean():.1f} % clean) | {norm} {epsilon} | `{attack}` | {peer} | {100 * ours.mean():.1f} | {100 * theirs.mean():.1f} | "
                    f"{100 * (ours == theirs).mean():.1f} | {alone} | {missed} | {seconds:.1f} | {theirs_seconds:.1f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
