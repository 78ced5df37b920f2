#!/usr/bin/env python3
"""Whole epochs of `mohs train` against a plain PyTorch loop of the same method: seconds and peak memory, in turn, each run in a process of its own.

    python3 benches/compare/epoch.py --mohs target/release/mohs --data DIR_WITH_MNIST
    python3 benches/compare/epoch.py … --threads 1 --priority 'chrt -f 20'    # on a machine that is busy

`--data` has `mnist_train.npz` (arrays `x`, uint8 [n, 28, 28], and `y`); the networks are those of `training.py`, the batch is 128, the optimizer Adam.
Each process makes two epochs, and the second one is counted: the first one has what is done once.
Time is the wall clock's, peak memory that of the whole process, so that PyTorch's own libraries are in it as ONNX Runtime's are in mohs's.

Made for Python 3.11, torch 2.15.0, onnx 1.23.2, numpy 2.4.6; seeded.
"""

import argparse
import csv
import os
import pathlib
import shlex
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np
import torch
from torch.nn import functional

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import training  # noqa: E402

BATCH, EPSILON, STEPS, REPLAYS, LEARNING_RATE = 128, 0.3, 7, 4, 0.001
METHODS = {"standard": "standard", "free": f"free:replays={REPLAYS}", "pgd": f"pgd:steps={STEPS}"}


def pgd(model, x, y):
    """The points that ascent finds, with the model in evaluation form."""
    model.eval()
    point = (x + torch.empty_like(x).uniform_(-EPSILON, EPSILON)).clamp(0, 1)
    for _ in range(STEPS):
        point.requires_grad_(True)
        (gradient,) = torch.autograd.grad(functional.cross_entropy(model(point), y), point)
        moved = point.detach() + 2.5 * EPSILON / STEPS * gradient.sign()
        point = torch.minimum(torch.maximum(moved, x - EPSILON), x + EPSILON).clamp(0, 1)
    model.train()
    return point


def free(model, optimizer, x, y, perturbation):
    """Replays of one batch: each pass moves the weights down and the perturbation up."""
    for _ in range(REPLAYS):
        delta = perturbation[: len(x)].clone().requires_grad_(True)
        optimizer.zero_grad()
        functional.cross_entropy(model((x + delta).clamp(0, 1)), y).backward()
        perturbation[: len(x)] = (delta.detach() + EPSILON * delta.grad.sign()).clamp(-EPSILON, EPSILON)
        optimizer.step()


def pytorch(arguments):
    """The loop: the seconds of the second epoch, and the peak memory, as a line of its own."""
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(1)
    model = training.NETWORKS[arguments.network][0]().train()
    with np.load(arguments.data / "mnist_train.npz") as data:
        samples, labels = torch.from_numpy(data["x"][: arguments.samples]), torch.from_numpy(data["y"][: arguments.samples]).long()
    optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE)
    perturbation = torch.zeros(BATCH, 1, 28, 28)
    # Two passes over the data are two epochs for all but `free`, which mohs counts in replays: it goes over the data half as often for as many steps.
    for _ in range(2):
        start = time.perf_counter()
        for chosen in torch.randperm(len(labels)).split(BATCH):
            x, y = samples[chosen].float().div(255).unsqueeze(1), labels[chosen]
            if arguments.pytorch == "free":
                free(model, optimizer, x, y, perturbation)
                continue
            if arguments.pytorch == "pgd":
                x = pgd(model, x, y)
            optimizer.zero_grad()
            functional.cross_entropy(model(x), y).backward()
            optimizer.step()
        seconds = time.perf_counter() - start
    print(seconds)


def spend(command):
    """Runs a command: what it said, and its peak memory in MiB."""
    child = subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    said = child.stdout.read()
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode != 0:
        sys.exit(f"{shlex.join(map(str, command))} ended with {child.returncode}")
    return said, usage.ru_maxrss / 1024


def ours(arguments, method, network, folder):
    """Seconds of the second pass over the data by mohs, and its peak memory."""
    table = folder / "training.csv"
    # The epochs of `free` count replays, so that two passes over the data are as many times more epochs.
    epochs = 2 * (REPLAYS if method == "free" else 1)
    command = [*arguments.priority, arguments.mohs, "train", network, "--data", arguments.data / "mnist_train.npz", "--limit", arguments.samples]
    command += ["--method", METHODS[method], "--batch-size", BATCH, "--optimizer", f"adam:learning_rate={LEARNING_RATE}", "--epochs", epochs]
    command += ["--threads", arguments.threads, "--reinitialize", 1, "--log", table, "-o", folder / "out.onnx", "-q"]
    _, memory = spend(command + (["--epsilon", EPSILON] if method != "standard" else []))
    with open(table, newline="") as file:
        before, last = [float(row["seconds"]) for row in csv.DictReader(file)]
    return last - before, memory


def theirs(arguments, method):
    command = [*arguments.priority, sys.executable, __file__, "--pytorch", method, "--data", arguments.data, "--network", arguments.network]
    said, memory = spend(command + ["--threads", arguments.threads, "--samples", arguments.samples])
    return float(said), memory


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mohs")
    parser.add_argument("--data", type=pathlib.Path, required=True)
    parser.add_argument("--network", choices=["mnist-small", "mnist-medium"], default="mnist-small")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--samples", type=int, default=12000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="*", choices=METHODS, default=list(METHODS))
    parser.add_argument("--priority", type=shlex.split, default=[], help="words in front of each command, such as `chrt -f 20`")
    parser.add_argument("--pytorch", choices=METHODS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.pytorch:
        return pytorch(arguments)
    if not arguments.mohs:
        parser.error("--mohs is needed")
    print(f"{arguments.network}, {arguments.samples} samples, batch {BATCH}, {arguments.threads} threads, medians of {arguments.rounds} rounds")
    print("| method | mohs, s | PyTorch, s | ratio | mohs, MiB | PyTorch, MiB |\n| --- | --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        network = folder / "network.onnx"
        build, shape, _ = training.NETWORKS[arguments.network]
        training.export(build().eval(), shape, network)
        for method in arguments.only:
            rounds = [(ours(arguments, method, network, folder), theirs(arguments, method)) for _ in range(arguments.rounds)]
            median = lambda side, part: statistics.median(one[side][part] for one in rounds)  # noqa: E731
            ratio = statistics.median(one[0][0] / one[1][0] for one in rounds)
            row = [f"{median(0, 0):.2f}", f"{median(1, 0):.2f}", f"{ratio:.2f}", f"{median(0, 1):.0f}", f"{median(1, 1):.0f}"]
            print(f"| `{METHODS[method]}` |", " | ".join(row), "|", flush=True)


if __name__ == "__main__":
    main()
