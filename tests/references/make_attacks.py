#!/usr/bin/env python3
"""Makes attacks.npz: adversarial examples of the attacks in attacks.py on the two digits classifiers of models/, without randomness.

    python3 tests/references/make_attacks.py             # attacks.npz
    python3 tests/references/make_attacks.py --curves    # robust accuracy over ε on the whole test set, printed

The classifiers are rebuilt in PyTorch from the weights in the .onnx files.
The samples are the first 32 of the test set that both classify rightly and for which float64 and float32, rounded in three ways, give the same
examples to 1e-6.
The others say nothing about an implementation: where a sample is classified with a probability of 1 − 1e-6, the cross-entropy's own gradient
p − 1 has no more than a digit in float32, and where an element of a gradient is near 0 its sign is a matter of rounding.

Arrays: `index` int64 [32] (row in digits-test.npz), `x` float32 [32, 1, 8, 8] in [0, 1], `y` int64 [32], and for each attack and each
model (`standard`, `adversarial`) `adversarial_ATTACK_MODEL` float32 [32, 1, 8, 8], computed in float64.

Made with Python 3.11, torch 2.15.0, onnx 1.23.2, numpy 2.4.6; one thread.
"""

import argparse
import pathlib
import sys

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import nn

HERE = pathlib.Path(__file__).resolve().parent
MODELS = HERE.parent.parent / "models"
sys.path.insert(0, str(HERE))

import attacks  # noqa: E402

SAMPLES = 32
AGREEMENT = 1e-6
ATTACKS = {
    "fgsm": ("linf", 0.1, lambda model, x, y: attacks.fgsm(model, x, y, 0.1)),
    "fgm_l2": ("l2", 1.0, lambda model, x, y: attacks.fgm(model, x, y, "l2", 1.0)),
    "fgm_l1": ("l1", 3.0, lambda model, x, y: attacks.fgm(model, x, y, "l1", 3.0)),
    "pgd_linf": ("linf", 0.1, lambda model, x, y: attacks.pgd(model, x, y, "linf", 0.1)),
    "pgd_l2": ("l2", 1.0, lambda model, x, y: attacks.pgd(model, x, y, "l2", 1.0)),
    "pgd_l1": ("l1", 4.0, lambda model, x, y: attacks.pgd(model, x, y, "l1", 4.0)),
}
CURVES = {
    "linf": [8 / 255, 16 / 255, 0.1, 0.15, 0.2, 0.25, 0.3],
    "l2": [0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0],
    "l1": [0.5, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0],
}


def classifier(name):
    """The classifier in models/digits-NAME.onnx as a PyTorch module: its layers in order, with its weights."""
    graph = onnx.load(MODELS / f"digits-{name}.onnx").graph
    weights = {tensor.name: torch.from_numpy(numpy_helper.to_array(tensor).copy()) for tensor in graph.initializer}
    layers = []
    for node in graph.node:
        if node.op_type == "Conv":
            kernel, bias = (weights[name] for name in node.input[1:])
            layers.append(nn.Conv2d(kernel.shape[1], kernel.shape[0], kernel.shape[2:], padding=1))
            layers[-1].weight.data, layers[-1].bias.data = kernel, bias
        elif node.op_type == "Gemm":
            kernel, bias = (weights[name] for name in node.input[1:])
            layers.append(nn.Linear(kernel.shape[1], kernel.shape[0]))
            layers[-1].weight.data, layers[-1].bias.data = kernel, bias
        else:
            layers.append({"Relu": nn.ReLU(), "MaxPool": nn.MaxPool2d(2), "Flatten": nn.Flatten(), "Reshape": nn.Flatten()}[node.op_type])
    return nn.Sequential(*layers).eval().requires_grad_(False)


def test_set():
    data = np.load(MODELS / "digits-test.npz")
    return torch.from_numpy(data["x"]).float().div(255).unsqueeze(1), torch.from_numpy(data["y"])


def curves():
    """Prints the robust accuracy of both classifiers over ε under each attack (PGD with 40 steps), the last iterate judged."""
    x, y = test_set()
    for name in ("standard", "adversarial"):
        model = classifier(name)
        print(f"{name}: clean {100 * (model(x).argmax(1) == y).double().mean():.1f} %")
        for kind, epsilons in CURVES.items():
            for attack, run in {"fgm": attacks.fgm, "pgd": lambda *given: attacks.pgd(*given, steps=40)}.items():
                robust = [(model(run(model, x, y, kind, epsilon)).argmax(1) == y).double().mean() for epsilon in epsilons]
                row = "  ".join(f"{epsilon:.3g}: {100 * value:.1f}" for epsilon, value in zip(epsilons, robust))
                print(f"  {kind} {attack}: {row}")


def rounded_otherwise(name):
    """The classifier in float32, in ways that round differently: as it is, its weights moved by a unit in the last place or none, channels last."""
    moved = classifier(name)
    generator = torch.Generator().manual_seed(0)
    for weight in moved.parameters():
        weight.data *= 1 + 2.0**-23 * torch.randint(-1, 2, weight.shape, generator=generator)
    return [classifier(name), moved, classifier(name).to(memory_format=torch.channels_last)]


def examples(x, y):
    """Every attack on every model in float64, and for each sample the largest difference of the float32 examples from these."""
    found, difference = {}, torch.zeros(len(x), dtype=torch.float64)
    for model_name in ("standard", "adversarial"):
        for attack, (kind, epsilon, run) in ATTACKS.items():
            exact = run(classifier(model_name).double(), x.double(), y)
            distance = attacks.norm(exact - x.double(), kind).max().item()
            assert distance <= epsilon * (1 + 1e-12), (model_name, attack, distance)
            assert 0 <= exact.min() and exact.max() <= 1
            for model in rounded_otherwise(model_name):
                rough = run(model, x, y)
                difference = torch.maximum(difference, attacks.norm(exact - rough.double(), "linf"))
            found[f"adversarial_{attack}_{model_name}"] = exact
    return found, difference


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--curves", action="store_true", help="print robust accuracies instead")
    parser.add_argument("--out", type=pathlib.Path, default=HERE / "attacks.npz", help="file to write")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.curves:
        curves()
        return

    x, y = test_set()
    right = torch.stack([classifier(name)(x).argmax(1) == y for name in ("standard", "adversarial")]).all(0)
    candidates = torch.nonzero(right)[: 6 * SAMPLES, 0]
    found, difference = examples(x[candidates], y[candidates])
    stable = torch.nonzero(difference < AGREEMENT)[:SAMPLES, 0]
    assert len(stable) == SAMPLES, (len(stable), len(candidates))
    index = candidates[stable]
    print(f"kept {SAMPLES} of the first {stable[-1].item() + 1} candidates; they differ by {difference[stable].max():.1e} at most")
    arrays = {name: example[stable].float().numpy() for name, example in found.items()}
    for name, array in arrays.items():
        kind, epsilon, _ = ATTACKS[name.removeprefix("adversarial_").rsplit("_", 1)[0]]
        predictions = classifier(name.rsplit("_", 1)[1])(torch.from_numpy(array)).argmax(1)
        distance = attacks.norm(torch.from_numpy(array).double() - x[index].double(), kind)
        print(f"{name}: {kind} {distance.min():.4f}..{distance.max():.7f} (ε {epsilon}), {(predictions != y[index]).sum()} of {SAMPLES} broken")
    np.savez_compressed(arguments.out, index=index.numpy(), x=x[index].numpy(), y=y[index].numpy(), **arrays)


if __name__ == "__main__":
    main()
