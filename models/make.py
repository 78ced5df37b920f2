#!/usr/bin/env python3
"""Makes the digits test set and the two digits classifiers of this folder.

    python3 models/make.py

writes `digits-test.npz`, `digits-standard.onnx` and `digits-adversarial.onnx` beside itself and prints the accuracies that `README.md` quotes.
It takes about two minutes on one core.

Made with Python 3.11, torch 2.15.0, scikit-learn 1.9.1, numpy 2.4.6, onnx 1.23.2, onnxscript 0.7.2.
Everything is seeded and runs on one thread: the same versions on the same kind of processor give the same bytes; others give models that differ slightly.
"""

import argparse
import hashlib
import pathlib
import warnings

import numpy as np
import onnx
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional

HERE = pathlib.Path(__file__).resolve().parent
SEED = 20240611
TRAINING_SAMPLES = 1200
LINF_EPSILONS = [8 / 255, 16 / 255, 0.1, 0.15, 0.2, 0.25, 0.3]


class DigitsClassifier(nn.Module):
    """Three convolutions and a linear layer for 8×8 scans; [n, 1, 8, 8] in [0, 1] to logits [n, 10]."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1, bias=False),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, padding=1, bias=False),
            nn.BatchNorm2d(32),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(32, 32, 3, padding=1, bias=False),
            nn.BatchNorm2d(32),
            nn.ReLU(),
        )
        self.classifier = nn.Linear(32 * 4 * 4, 10)

    def forward(self, x):
        return self.classifier(torch.flatten(self.features(x), 1))


def digits():
    """The scans as uint8 [1797, 8, 8] (0..16 mapped to 0..255 by rounding v·255/16) and the labels, in one fixed shuffled order."""
    data = load_digits()
    order = np.random.RandomState(SEED).permutation(len(data.target))
    pixels = np.rint(data.images[order] * 255 / 16).astype(np.uint8)
    return pixels, data.target[order].astype(np.int64)


def as_input(pixels):
    return torch.from_numpy(pixels).float().div(255).unsqueeze(1)


def pgd_linf(model, x, y, epsilon, steps, step_size, generator=None):
    """Projected gradient ascent on the cross-entropy in the ℓ∞ ball and [0, 1]; a random start where a generator is given."""
    adversarial = x.clone()
    if generator is not None:
        adversarial = (x + torch.empty_like(x).uniform_(-epsilon, epsilon, generator=generator)).clamp(0, 1)
    for _ in range(steps):
        adversarial.requires_grad_(True)
        loss = functional.cross_entropy(model(adversarial), y, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, adversarial)
        moved = adversarial.detach() + step_size * gradient.sign()
        adversarial = torch.minimum(torch.maximum(moved, x - epsilon), x + epsilon).clamp(0, 1)
    return adversarial.detach()


def shifted(x, generator):
    """The scans, each moved by up to one pixel to any side: the only augmentation."""
    padded = functional.pad(x, (1, 1, 1, 1))
    moves = torch.randint(0, 3, (len(x), 2), generator=generator).tolist()
    return torch.stack([padded[i, :, row : row + 8, column : column + 8] for i, (row, column) in enumerate(moves)])


def train(x, y, adversarial, epochs, epsilon=0.2, steps=7):
    """Trains one classifier: plainly, or on PGD examples (Madry et al. 2018), with half-shifted scans and a one-cycle learning rate."""
    torch.manual_seed(SEED)
    generator = torch.Generator().manual_seed(SEED)
    model = DigitsClassifier()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=1e-2)
    batch = 50
    batches = len(x) // batch
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=5e-3, total_steps=epochs * batches)
    for _ in range(epochs):
        order = torch.randperm(len(x), generator=generator)
        for first in range(0, batches * batch, batch):
            chosen = order[first : first + batch]
            inputs, labels = x[chosen].clone(), y[chosen]
            half = torch.rand(len(chosen), generator=generator) < 0.5
            inputs[half] = shifted(inputs[half], generator)
            if adversarial:
                model.eval()
                inputs = pgd_linf(model, inputs, labels, epsilon, steps, 2.5 * epsilon / steps, generator)
            model.train()
            optimizer.zero_grad()
            functional.cross_entropy(model(inputs), labels, label_smoothing=0.0 if adversarial else 0.05).backward()
            optimizer.step()
            schedule.step()
    return model.eval()


def accuracy(model, x, y):
    with torch.no_grad():
        return (model(x).argmax(1) == y).double().mean().item()


def without_traces(path):
    """Takes the exporter's notes (stack traces with the paths of the exporting machine) out of a file; nothing else changes."""
    model = onnx.load(path)
    graphs = [model.graph, *model.functions]
    for graph in graphs:
        del graph.metadata_props[:]
        for node in graph.node:
            del node.metadata_props[:]
            node.doc_string = ""
    for value in [*model.graph.input, *model.graph.output, *model.graph.value_info, *model.graph.initializer]:
        del value.metadata_props[:]
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)


def export(model, path, opset, dynamo):
    """Writes the classifier with a dynamic batch axis, by the torch.export-based exporter or by the legacy one."""
    example = torch.zeros(2, 1, 8, 8)
    names = {"input_names": ["input"], "output_names": ["logits"], "opset_version": opset}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if dynamo:
            batch = {0: torch.export.Dim("batch")}
            torch.onnx.export(
                model, (example,), path, dynamo=True, dynamic_shapes=(batch,), external_data=False, verbose=False, **names
            )
        else:
            batch = {0: "batch"}
            torch.onnx.export(model, (example,), path, dynamo=False, dynamic_axes={"input": batch, "logits": batch}, **names)
    without_traces(path)


def report(name, model, x, y):
    robust = []
    for epsilon in LINF_EPSILONS:
        found = pgd_linf(model, x, y, epsilon, 40, 2.5 * epsilon / 40)
        robust.append(f"{epsilon:.3f}: {100 * accuracy(model, found, y):.1f} %")
    print(f"{name}: clean {100 * accuracy(model, x, y):.2f} %; PGD-40 linf {', '.join(robust)}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=pathlib.Path, default=HERE, help="folder to write to (default: this script's)")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)

    pixels, labels = digits()
    x, y = as_input(pixels), torch.from_numpy(labels)
    training, test = slice(0, TRAINING_SAMPLES), slice(TRAINING_SAMPLES, None)
    data = arguments.out / "digits-test.npz"
    np.savez_compressed(data, x=pixels[test], y=labels[test])

    standard = train(x[training], y[training], adversarial=False, epochs=40)
    report("standard", standard, x[test], y[test])
    export(standard, arguments.out / "digits-standard.onnx", opset=18, dynamo=True)

    hardened = train(x[training], y[training], adversarial=True, epochs=60)
    report("adversarial", hardened, x[test], y[test])
    export(hardened, arguments.out / "digits-adversarial.onnx", opset=13, dynamo=False)

    for name in ("digits-test.npz", "digits-standard.onnx", "digits-adversarial.onnx"):
        path = arguments.out / name
        print(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {name}  {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
