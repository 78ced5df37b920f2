#!/usr/bin/env python3
"""Compares the distances that minimum-norm attacks find: mohs against Foolbox and adversarial-library, at equal numbers of gradients.

    python3 benches/compare/minimum_norm.py --mohs target/release/mohs --nets DIR --data mnist_test.npz

DIR holds `convSmallRELU__Point.onnx` and `convSmallRELU__PGDK.onnx` (dlshriver/dnnv-benchmarks, from ERAN), the file MNIST's test images as `x`,
uint8 [n, 28, 28], with labels `y`. The networks are rebuilt in PyTorch from the weights in the files, and held to the scores of ONNX Runtime.

For each network, norm and attack a line for mohs and one for each peer: the median and the mean of the distances of the samples that were broken,
how many were, gradient evaluations per sample, seconds. Last, the ratio of mohs's median to the best peer's, both over all samples, those that
were not broken being infinitely far: an attack that breaks fewer would look nearer by leaving out the hard ones.

Needs torch, onnx, onnxruntime, foolbox and adv-lib.
"""

import argparse
import csv
import math
import pathlib
import subprocess
import tempfile
import time

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import numpy_helper
from torch.nn import functional

LARGE = {"linf": 1, "l2": 30, "l1": 800}
ORDER = {"linf": math.inf, "l2": 2, "l1": 1}


def network(path):
    """The network of the file as a PyTorch module."""
    weights = {w.name: torch.tensor(numpy_helper.to_array(w).copy()) for w in onnx.load(path).graph.initializer}

    class Network(torch.nn.Module):
        def forward(self, x):
            for layer in ("0.0", "1.0"):
                x = functional.relu(functional.conv2d(x, weights[f"{layer}.weight"], weights[f"{layer}.bias"], stride=2))
            x = x.permute(0, 2, 3, 1).flatten(1)
            x = functional.relu(functional.linear(x, weights["4.0.weight"], weights["4.0.bias"]))
            return functional.linear(x, weights["5.weight"], weights["5.bias"])

    return Network().eval()


def mohs(arguments, path, attack, norm):
    """Distances by sample, gradients per sample, seconds."""
    with tempfile.TemporaryDirectory() as folder:
        command = [arguments.mohs, "evaluate", path, "--data", arguments.data, "--limit", str(arguments.samples), "--attack", attack]
        command += ["--norm", norm, "--epsilon", str(LARGE[norm]), "--out", folder, "--threads", str(arguments.threads), "--quiet"]
        start = time.monotonic()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        seconds = time.monotonic() - start
        with open(pathlib.Path(folder) / "samples.csv", newline="") as file:
            rows = [row for row in csv.DictReader(file) if row["clean_prediction"] == row["label"] and row["attack"] != "all"]
    found = [float(row[norm]) if row["robust"] == "false" else math.inf for row in rows]
    steps = [int(row["steps"]) for row in rows]
    return np.array(found), sum(steps) / len(steps), seconds


def distances(model, x, y, adversarial, norm):
    with torch.no_grad():
        broken = model(adversarial).argmax(1) != y
    length = (adversarial - x).flatten(1).norm(p=ORDER[norm], dim=1)
    return torch.where(broken, length, torch.inf).numpy()


def show(name, found, gradients, seconds):
    broken = found[np.isfinite(found)]
    print(
        f"  {name:<24} median {np.median(broken):.5f}  mean {np.mean(broken):.5f}  broken {len(broken)}/{len(found)}  "
        f"gradients {gradients:.0f}  {seconds:.1f} s",
        flush=True,
    )
    return np.median(found)


def cases(arguments):
    """Attack of mohs, norm, and the peers that do the same with as many gradients."""
    import foolbox.attacks as foolbox
    from adv_lib.attacks import carlini_wagner_l2, ddn, fab, fmn

    steps = arguments.steps
    for norm, attack in [("linf", foolbox.LInfFMNAttack), ("l2", foolbox.L2FMNAttack), ("l1", foolbox.L1FMNAttack)]:
        yield f"fmn:steps={steps}", norm, steps, {
            "adv-lib fmn": lambda m, x, y, norm=norm: fmn(m, x, y, ORDER[norm], steps=steps),
            "foolbox fmn": attack(steps=steps),
        }
    yield f"ddn:steps={steps}", "l2", steps, {
        "adv-lib ddn": lambda m, x, y: ddn(m, x, y, steps=steps, levels=None),
        "foolbox ddn": foolbox.DDNAttack(steps=steps),
    }
    candidates = 9
    for norm, attack in [("linf", foolbox.LinfDeepFoolAttack), ("l2", foolbox.L2DeepFoolAttack)]:
        # Foolbox takes a first gradient once more than its steps, and one for each candidate.
        yield "deepfool", norm, 50 * candidates, {"foolbox deepfool": attack(steps=50, candidates=candidates + 1)}
    targets = arguments.targets
    for norm in ORDER:
        yield f"fab:steps={steps},targets={targets}", norm, steps * targets, {
            "adv-lib fab": lambda m, x, y, norm=norm: fab(
                m, x, y, ORDER[norm], n_iter=steps, restarts=targets, targeted_restarts=True
            ),
        }
    searches, each = 5, 4 * steps
    yield f"cw:steps={each},searches={searches}", "l2", searches * each, {
        "adv-lib cw": lambda m, x, y: carlini_wagner_l2(m, x, y, max_iterations=each, binary_search_steps=searches),
        "foolbox cw": foolbox.L2CarliniWagnerAttack(binary_search_steps=searches, steps=each),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mohs", required=True)
    parser.add_argument("--nets", required=True, type=pathlib.Path)
    parser.add_argument("--data", required=True)
    parser.add_argument("--samples", type=int, default=500)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--targets", type=int, default=9)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--networks", nargs="+", default=["Point", "PGDK"], choices=["Point", "PGDK"])
    parser.add_argument("--only", default="", help="attacks whose name starts so")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    import foolbox

    with np.load(arguments.data) as data:
        x = torch.tensor(data["x"][: arguments.samples].astype(np.float32) / np.float32(255))[:, None]
        y = torch.tensor(data["y"][: arguments.samples].astype(np.int64))
    for name in arguments.networks:
        path = str(arguments.nets / f"convSmallRELU__{name}.onnx")
        model = network(path)
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        theirs = session.run(None, {session.get_inputs()[0].name: x[:1].numpy()})[0]
        with torch.no_grad():
            assert np.abs(model(x[:1]).numpy() - theirs).max() < 1e-3, "the rebuilt network is another one"
            right = model(x).argmax(1) == y
        clean, labels = x[right], y[right]
        wrapped = foolbox.PyTorchModel(model, bounds=(0, 1), device="cpu")
        for attack, norm, gradients, peers in cases(arguments):
            if not attack.startswith(arguments.only):
                continue
            print(f"{name} {norm}", flush=True)
            found, steps, seconds = mohs(arguments, path, attack, norm)
            ours, best = show(f"mohs {attack}", found, steps, seconds), math.inf
            for peer, run in peers.items():
                start = time.monotonic()
                if isinstance(run, foolbox.Attack):
                    adversarial = run.run(wrapped, clean, foolbox.criteria.Misclassification(labels))
                else:
                    adversarial = run(model, clean, labels)
                seconds = time.monotonic() - start
                # The median over all samples, those that were not broken being infinitely far.
                best = min(best, show(peer, distances(model, clean, labels, adversarial, norm), gradients, seconds))
            print(f"  mohs / best: {ours / best:.4f}", flush=True)


if __name__ == "__main__":
    main()
