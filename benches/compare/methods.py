#!/usr/bin/env python3
"""Trains one network with every method of `mohs train` from the same first weights, and measures what each has come to.

    python3 benches/compare/methods.py digits --mohs target/release/mohs --work DIR
    python3 benches/compare/methods.py mnist --mohs target/release/mohs --work DIR --data DIR_WITH_MNIST

`digits` takes the data and the network of `models/make.py`, `mnist` the network `mnist-small` of `training.py` and the files `mnist_train.npz` and
`mnist_test.npz` (arrays `x`, uint8 [n, 28, 28], and `y`) of the folder `--data`.
Each result is attacked by `mohs evaluate` with PGD of 40 steps and with PGD of 100 steps and 5 starts.
Then mohs and PyTorch both walk 40 steps from the clean samples, where no chance is in it: they have to agree within half a point.
Everything runs on one thread; the time is the CPU time of `mohs train`, which a busy machine changes little.
Every command is printed before it runs, and after it a row of a Markdown table: method, norm, clean accuracy, accuracy under PGD-40, under PGD-100
with 5 starts, under PGD-40 from the clean samples by mohs and by PyTorch, passes, seconds.

Made for Python 3.11, torch 2.15.0, onnx 1.23.2, onnxscript 0.7.2, scikit-learn 1.9.1, numpy 2.4.6; seeded.
"""

import argparse
import csv
import os
import pathlib
import shlex
import subprocess
import sys

import numpy as np
import torch
from onnx import load, numpy_helper
from torch.nn import functional

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent.parent / "models")]

import make  # noqa: E402
import training  # noqa: E402

AGREEMENT = 0.005


class Trial:
    """A data set with a network, a radius, and how every method is trained on it."""

    def __init__(self, network, shape, epsilon, epsilon_l2, epochs, common, limits=(None, None), stage=()):
        self.network, self.shape, self.epsilon, self.epsilon_l2 = network, shape, epsilon, epsilon_l2
        self.epochs, self.common = epochs, common
        # How many test samples the attack of 40 steps gets, and the dear one; and how the first weights are trained before any method takes over.
        self.limits, self.stage = limits, stage


# The name of each run, its method, the norm of its perturbations, and how many times the epochs of the others it gets.
METHODS = {
    "standard": ("standard", "linf", 1),
    "fgsm": ("fgsm", "linf", 1),
    "fgsm-zero": ("fgsm:random_start=false", "linf", 1),
    "fgsm-unguarded": ("fgsm:random_start=false,guard=1", "linf", 1),
    "fgm": ("fgm", "l2", 1),
    "pgd": ("pgd:steps=7", "linf", 1),
    "free": ("free:replays=8", "linf", 1),
    "free-long": ("free:replays=4", "linf", 4),
    "yopo": ("yopo:m=3,n=5", "linf", 1),
    "freelb": ("freelb:steps=3", "l2", 1),
    "trades": ("trades:steps=7", "linf", 1),
}

TRIALS = {
    "digits": Trial(
        make.DigitsClassifier, (1, 8, 8), 0.2, 1.0, 60, ["--batch-size", 50, "--crop", 1, "--schedule", "one-cycle", "--optimizer", "adamw:learning_rate=0.005"],
    ),
    "mnist": Trial(
        training.small, (1, 28, 28), 0.3, 2.0, 8, ["--batch-size", 128, "--schedule", "one-cycle", "--optimizer", "adam:learning_rate=0.002"],
        limits=(2000, 1000), stage=["--method", "fgsm", "--epsilon", 0.1, "--epochs", 1],
    ),
}


def spend(command, priority=()):
    """Runs a command, and gives the seconds of CPU time that it took, and what it said."""
    print("$", shlex.join(map(str, command)), flush=True)
    child = subprocess.Popen([*priority, *map(str, command)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    log = child.stderr.read()
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode != 0:
        sys.exit(log)
    return usage.ru_utime + usage.ru_stime, log


def rows(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def prepare(name, trial, arguments):
    """The files of the training and the test data, and of the network with its first weights."""
    if name == "digits":
        pixels, labels = make.digits()
        parts = {"train": slice(0, make.TRAINING_SAMPLES), "test": slice(make.TRAINING_SAMPLES, None)}
        for part, chosen in parts.items():
            np.savez_compressed(arguments.work / f"digits_{part}.npz", x=pixels[chosen], y=labels[chosen])
        folder = arguments.work
    else:
        folder = arguments.data
    network = arguments.work / f"{name}.onnx"
    torch.manual_seed(make.SEED)
    training.export(trial.network().eval(), trial.shape, network)
    return folder / f"{name}_train.npz", folder / f"{name}_test.npz", network


def robust_by_pytorch(trial, path, data, limit, steps=40):
    """The shares of the samples that PyTorch finds right as they are, and at every point of a PGD that starts from there."""
    model = trial.network().eval()
    weights = {tensor.name: torch.from_numpy(numpy_helper.to_array(tensor).copy()) for tensor in load(path).graph.initializer}
    wanted = {name for name in model.state_dict() if not name.endswith("num_batches_tracked")}
    missing = model.load_state_dict({name: weights[name] for name in wanted}, strict=False)
    assert not [name for name in missing.missing_keys if name in wanted]
    samples = torch.from_numpy(data["x"][:limit]).float().div(255).reshape(-1, *trial.shape)
    labels = torch.from_numpy(data["y"][:limit]).long()
    clean = robust = 0
    epsilon = trial.epsilon
    for x, y in zip(samples.split(250), labels.split(250)):
        point, standing = x, torch.ones(len(y), dtype=torch.bool)
        for step in range(steps + 1):
            point = point.detach().requires_grad_()
            logits = model(point)
            standing &= logits.argmax(1) == y
            if step == 0:
                clean += int(standing.sum())
            (gradient,) = torch.autograd.grad(functional.cross_entropy(logits, y, reduction="sum"), point)
            moved = point.detach() + 2.5 * epsilon / steps * gradient.sign()
            point = torch.minimum(torch.maximum(moved, x - epsilon), x + epsilon).clamp(0, 1)
        robust += int(standing.sum())
    return clean / len(labels), robust / len(labels)


def robust_by_mohs(mohs, trial, model, data, attack, limit, folder):
    """The shares that `mohs evaluate` finds."""
    command = [mohs, "evaluate", model, "--data", data, "--epsilon", trial.epsilon, "--attack", attack, "--threads", 1, "--out", folder]
    spend(command + (["--limit", limit] if limit else []))
    (row,) = [row for row in rows(folder / "summary.csv") if row["attack"].startswith("pgd")]
    return float(row["clean_accuracy"]), float(row["robust_accuracy"])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trial", choices=TRIALS)
    parser.add_argument("--mohs", required=True)
    parser.add_argument("--work", type=pathlib.Path, required=True, help="the folder for models and tables")
    parser.add_argument("--data", type=pathlib.Path, help="the folder with MNIST")
    parser.add_argument("--priority", type=shlex.split, default=[], help="words in front of the command that is timed, such as `chrt -f 20`")
    parser.add_argument("--measure", action="store_true", help="measure what is in --work already, without training")
    parser.add_argument("--only", nargs="*", choices=METHODS, default=list(METHODS))
    parser.add_argument("--more", nargs="*", metavar="NAME=METHOD", default=[], help="further methods in the norm linf")
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    trial = TRIALS[arguments.trial]
    train, test, network = prepare(arguments.trial, trial, arguments)
    first = ["--reinitialize", 1, "--threads", 1]
    if trial.stage:
        # At the whole radius, random weights learn nothing at all.
        stage = arguments.work / "stage.onnx"
        if not arguments.measure:
            spend([arguments.mohs, "train", network, "--data", train, *trial.stage, *first, "--log", arguments.work / "stage.csv", "-o", stage])
        network, first = stage, ["--threads", 1]
    methods = {name: METHODS[name] for name in arguments.only}
    methods.update((name, (method, "linf", 1)) for name, method in (more.split("=", 1) for more in arguments.more))
    for name, (method, norm, times) in methods.items():
        result, table = arguments.work / f"{name}.onnx", arguments.work / f"{name}.csv"
        radius = [] if method == "standard" else ["--norm", norm, "--epsilon", trial.epsilon if norm == "linf" else trial.epsilon_l2]
        command = [arguments.mohs, "train", network, "--data", train, "--method", method, *radius, *first]
        command += ["--epochs", times * trial.epochs, *trial.common, "--log", table, "-o", result]
        seconds, log = (float("nan"), "") if arguments.measure else spend(command, arguments.priority)
        print(*[line for line in log.splitlines() if "collapsed" in line], sep="\n", end="")
        of = [arguments.mohs, trial, result, test]
        clean, robust = robust_by_mohs(*of, "pgd:steps=40", trial.limits[0], arguments.work / f"{name}-40")
        _, strong = robust_by_mohs(*of, "pgd:steps=100,restarts=5", trial.limits[1], arguments.work / f"{name}-100")
        _, still = robust_by_mohs(*of, "pgd:steps=40,random_start=false", trial.limits[0], arguments.work / f"{name}-still")
        clean_torch, still_torch = robust_by_pytorch(trial, result, np.load(test), trial.limits[0])
        passes = rows(table)[-1]["passes"]
        shares = " | ".join(f"{100 * share:.1f}" for share in (clean, robust, strong, still, still_torch))
        print(f"| `{method}` | {norm if radius else '–'} | {shares} | {passes} | {seconds:.0f} |", flush=True)
        if abs(clean - clean_torch) > AGREEMENT or abs(still - still_torch) > AGREEMENT:
            print(f"PyTorch and mohs differ: clean {clean_torch} and {clean}", flush=True)


if __name__ == "__main__":
    main()
