#!/usr/bin/env python3
"""Times PGD on a CUDA device (or the CPU): `mohs evaluate` against the same steps in PyTorch, in turn in one process.

    python3 benches/compare/pgd.py --mohs ./mohs --device cuda --onnxruntime /opt/ort/libonnxruntime.so.1.31.1

Both run PGD in ℓ∞ on a ResNet with random weights and random images, each labelled as the model sees it, with an ε so small that no sample breaks:
every step is done, by both. PyTorch runs eager, and with `torch.compile`. What is compared is seconds per gradient step of one sample; for mohs the
`seconds` of summary.csv, which hold the judge's forward passes too.

A machine that has CUDA and PyTorch but no ONNX Runtime takes the three libraries of the wheel `onnxruntime-gpu` from a folder:
`--pieces DIR` joins files called `ort.tar.xz.00`, `.01`, … in DIR and unpacks them first, and puts CUDA's own libraries from PyTorch's packages
(`nvidia/*/lib`) on the loader's path.

Made for torch 2.11 or newer; seeded. The CUDA figures are open: no such device was at hand when this was written, only `--device cpu` was run.
"""

import argparse
import csv
import glob
import os
import pathlib
import statistics
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import time

import numpy as np
import torch
from torchvision.models import resnet18, resnet50

SEED = 7
EPSILON = 1e-6


def libraries(pieces, folder):
    """The library that the pieces of an archive hold, unpacked into `folder`."""
    parts = sorted(pathlib.Path(pieces).glob("ort.tar.xz.*"))
    if not parts:
        sys.exit(f"{pieces} has no ort.tar.xz.00: make the pieces with\n  tar cJ libonnxruntime*.so* | split -b 55M -d - ort.tar.xz.")
    archive = folder / "ort.tar.xz"
    with archive.open("wb") as whole:
        for part in parts:
            whole.write(part.read_bytes())
    with tarfile.open(archive) as unpacked:
        unpacked.extractall(folder, filter="data")
    return next(folder.rglob("libonnxruntime.so*"))


def environment():
    """This process's environment with CUDA's libraries from the Python packages on the loader's path."""
    packages = sysconfig.get_paths()["purelib"]
    found = sorted(glob.glob(f"{packages}/nvidia/*/lib"))
    known = os.environ.get("LD_LIBRARY_PATH")
    return {**os.environ, "LD_LIBRARY_PATH": ":".join(found + ([known] if known else []))}


def export(model, x, path):
    torch.onnx.export(
        model, (x[:1],), path, dynamo=False, opset_version=17, input_names=["x"], output_names=["logits"],
        dynamic_axes={"x": {0: "N"}, "logits": {0: "N"}},
    )


def run_mohs(arguments, model, data, out):
    """Seconds for all steps, as mohs itself measures them."""
    command = [
        arguments.mohs, "--quiet", "evaluate", model, "--data", data, "--epsilon", str(EPSILON), "--attack", f"pgd:steps={arguments.steps}",
        "--device", arguments.device, "--batch-size", str(arguments.batch), "--out", out,
    ]
    if arguments.onnxruntime:
        command += ["--onnxruntime", arguments.onnxruntime]
    subprocess.run(command, check=True, env=environment(), stdout=subprocess.DEVNULL)
    with open(pathlib.Path(out) / "summary.csv", newline="") as file:
        row = next(csv.DictReader(file))
    steps = int(row["gradient_evaluations"])
    assert steps == arguments.samples * arguments.steps, f"mohs did {steps} steps: a sample broke, or was wrong clean"
    return float(row["seconds"])


def run_torch(model, x, y, arguments):
    """Seconds for the same steps: sign of the gradient of the summed cross-entropy, projected onto the ball and the bounds."""
    wait = torch.cuda.synchronize if x.is_cuda else (lambda: None)
    size = 2.5 * EPSILON / arguments.steps
    wait()
    start = time.perf_counter()
    for clean, labels in zip(x.split(arguments.batch), y.split(arguments.batch)):
        point = clean + EPSILON * (2 * torch.rand_like(clean) - 1)
        for _ in range(arguments.steps):
            point.requires_grad_()
            loss = torch.nn.functional.cross_entropy(model(point), labels, reduction="sum")
            (gradient,) = torch.autograd.grad(loss, point)
            with torch.no_grad():
                point = (point + size * gradient.sign()).clamp(clean - EPSILON, clean + EPSILON).clamp(0, 1)
    wait()
    return time.perf_counter() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mohs", required=True, help="the mohs binary")
    parser.add_argument("--device", default="cuda", help="as of mohs: cpu, cuda, cuda:N")
    parser.add_argument("--onnxruntime", help="the ONNX Runtime library")
    parser.add_argument("--pieces", help="a folder with the pieces of an archive of the ONNX Runtime libraries")
    parser.add_argument("--model", choices=["resnet18", "resnet50"], default="resnet50")
    parser.add_argument("--size", type=int, default=224, help="height and width of the images")
    parser.add_argument("--samples", type=int, default=256)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    arguments = parser.parse_args()
    torch.manual_seed(SEED)
    device = torch.device(arguments.device)
    model = {"resnet18": resnet18, "resnet50": resnet50}[arguments.model](weights=None, num_classes=10).eval()
    x = torch.rand(arguments.samples, 3, arguments.size, arguments.size)
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        if arguments.pieces:
            arguments.onnxruntime = str(libraries(arguments.pieces, folder))
        export(model, x, folder / "model.onnx")
        model, x = model.to(device), x.to(device)
        with torch.no_grad():
            y = torch.cat([model(part).argmax(1) for part in x.split(arguments.batch)])
        np.savez(folder / "data.npz", x=x.cpu().numpy(), y=y.cpu().numpy())
        doctor = [arguments.mohs, "doctor", "--device", arguments.device]
        doctor += ["--onnxruntime", arguments.onnxruntime] if arguments.onnxruntime else []
        subprocess.run(doctor, check=True, env=environment())
        ours = lambda: run_mohs(arguments, folder / "model.onnx", folder / "data.npz", folder / "out")
        contenders = {"mohs": ours, "PyTorch, eager": lambda: run_torch(model, x, y, arguments)}
        if not arguments.no_compile:
            compiled = torch.compile(model)
            contenders["PyTorch, torch.compile"] = lambda: run_torch(compiled, x, y, arguments)
        for warm in contenders.values():
            warm()
        times = {name: [] for name in contenders}
        for _ in range(arguments.rounds):
            for name, contender in contenders.items():
                times[name].append(contender())
    steps = arguments.samples * arguments.steps
    print(f"\nPGD-{arguments.steps}, {arguments.model} at {arguments.size}×{arguments.size}, batch {arguments.batch}, {arguments.device}, torch {torch.__version__}\n")
    print("| what | ms per sample-step | mohs / this |\n| --- | --- | --- |")
    for name, found in times.items():
        ratio = statistics.median(a / b for a, b in zip(times["mohs"], found))
        print(f"| {name} | {1e3 * statistics.median(found) / steps:.3f} | {ratio:.3f} |")


if __name__ == "__main__":
    main()
