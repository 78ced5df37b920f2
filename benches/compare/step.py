#!/usr/bin/env python3
"""Times one gradient step of an exported ResNet-18: mohs's gradient graph on ONNX Runtime against PyTorch, in turn in one process.

    cargo build --release
    python3 benches/compare/step.py --mohs target/release/mohs

Three things are timed in turn, round after round, so that a busy or throttled machine slows all of them alike: the gradient graph that `mohs
gradient` derives from the exported file; the PyTorch model that it was exported from, as it is (eager); and the same model with BatchNorm folded
into the convolutions and channels-last memory, the fastest form of PyTorch without compilation.
All compute the loss of each sample and d(sum of losses)/d(input) for one batch on the same number of threads.
The gradients are compared with PyTorch's in float64.
Then the time is taken that `mohs gradient` needs for this model and for a ResNet-50 at 224×224, process start and files included.

Made for Python 3.11, torch 2.15.0, torchvision 0.29.2, onnx 1.23.2, onnxscript 0.7.2, onnxruntime 1.31.1, numpy 2.4.6; seeded.
"""

import argparse
import contextlib
import copy
import importlib.util
import io
import logging
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import warnings

import numpy as np
import torch
import torchvision
from torch import nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

SEED = 7
LIMIT_STEP = 1.1
LIMIT_DERIVATION_SECONDS = 2.0


def resnet18_for_32():
    """ResNet-18 as it is used for CIFAR-10: a 3×3 stem of stride 1, no max pool, 10 classes."""
    model = ResNet(BasicBlock, [2, 2, 2, 2], num_classes=10)
    model.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    model.maxpool = nn.Identity()
    return model


def resnet50():
    """ResNet-50 as torchvision has it, 1000 classes."""
    return ResNet(Bottleneck, [3, 4, 6, 3])


def prepared(build, shape):
    """The model with random weights, seeded, and BatchNorm statistics from a few batches of noise, so that activations keep a usual size."""
    torch.manual_seed(SEED)
    model = build().train()
    with torch.no_grad():
        for _ in range(4):
            model(torch.rand(8, *shape))
    return model.eval().requires_grad_(False)


def folded(model):
    """A copy with each BatchNorm folded into the convolution before it and channels-last memory."""
    model = copy.deepcopy(model)
    for block in model.modules():
        for number in (1, 2, 3):
            conv, norm = getattr(block, f"conv{number}", None), getattr(block, f"bn{number}", None)
            if conv is not None and norm is not None:
                setattr(block, f"conv{number}", fuse_conv_bn_eval(conv, norm))
                setattr(block, f"bn{number}", nn.Identity())
        shortcut = getattr(block, "downsample", None)
        if shortcut is not None:
            block.downsample = fuse_conv_bn_eval(shortcut[0], shortcut[1])
    return model.to(memory_format=torch.channels_last)


def export(model, shape, path, exporter):
    """Writes the model with a dynamic batch: the legacy exporter at opset 17, or the torch.export-based one at opset 18."""
    example = torch.rand(2, *shape)
    names = {"input_names": ["input"], "output_names": ["logits"]}
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        if exporter == "dynamo":
            batch = ({0: torch.export.Dim("batch")},)
            options = {"dynamo": True, "dynamic_shapes": batch, "external_data": False, "opset_version": 18, "verbose": False}
        else:
            options = {"dynamo": False, "dynamic_axes": {"input": {0: "batch"}, "logits": {0: "batch"}}, "opset_version": 17}
        torch.onnx.export(model, (example,), path, **options, **names)


def onnxruntime_library():
    """The shared library inside the installed onnxruntime package, so that mohs uses the same one; none where it is not found."""
    package = importlib.util.find_spec("onnxruntime")
    folder = pathlib.Path(package.origin).parent / "capi"
    found = [path for pattern in ("libonnxruntime.so*", "libonnxruntime*.dylib", "onnxruntime.dll") for path in sorted(folder.glob(pattern))]
    return str(found[0]) if found else None


def derive(mohs, model, gradient, runs):
    """Runs `mohs gradient` some times; the seconds of each run, from start to exit."""
    environment = dict(os.environ)
    library = onnxruntime_library()
    if library is not None:
        environment.setdefault("MOHS_ONNXRUNTIME", library)
    seconds = []
    for _ in range(runs):
        start = time.perf_counter()
        done = subprocess.run([mohs, "gradient", str(model), "-o", str(gradient)], env=environment, capture_output=True, text=True)
        seconds.append(time.perf_counter() - start)
        if done.returncode != 0:
            sys.exit(f"`{mohs} gradient {model} -o {gradient}` ended with code {done.returncode}:\n{done.stderr.strip()}")
    return seconds


def pytorch_step(model, x, y):
    """The loss of each sample and the gradient of their sum, as an attack library computes them."""

    def step():
        point = x.detach().requires_grad_(True)
        losses = functional.cross_entropy(model(point), y, reduction="none")
        (gradient,) = torch.autograd.grad(losses.sum(), point)
        return losses, gradient

    return step


def onnxruntime_step(path, x, y, threads):
    """The same from a gradient graph under mohs's contract: inputs `input`, `labels`; outputs `loss`, `grad`."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # The workers must not go on spinning after a run: they would take the processor from what is timed next.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    feeds = {"input": x.numpy(), "labels": y.numpy()}

    def step():
        return session.run(["loss", "grad"], feeds)

    return step


def timed_in_turn(steps, rounds, warmups):
    """Milliseconds of each step in each round, every round running all of them one after the other."""
    for step in steps.values():
        for _ in range(warmups):
            step()
    taken = {name: [] for name in steps}
    for _ in range(rounds):
        for name, step in steps.items():
            time.sleep(0.01)
            start = time.perf_counter()
            step()
            taken[name].append(1000 * (time.perf_counter() - start))
    return taken


def relative_difference(gradient, exact):
    """The largest difference within each sample, relative to the sample's largest element; the worst sample, and the median one."""
    difference = np.abs(np.asarray(gradient, dtype=np.float64) - exact).reshape(len(exact), -1).max(1)
    each = difference / np.abs(exact).reshape(len(exact), -1).max(1)
    return each.max(), np.median(each)


def table(heads, rows):
    """A table in Markdown, its columns aligned."""
    cells = [heads, *rows]
    widths = [max(len(row[column]) for row in cells) for column in range(len(heads))]
    lines = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths)) + " |" for row in cells]
    lines.insert(1, "| " + " | ".join("-" * width for width in widths) + " |")
    return "\n".join(lines)


def processor():
    """The processor's name, where the system tells it."""
    information = pathlib.Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def compare_steps(arguments, folder):
    """Times the steps and prints the table of milliseconds and the table of differences; gives the ratio to the best PyTorch form."""
    shape = (3, 32, 32)
    model = prepared(resnet18_for_32, shape)
    path = folder / "resnet18-32.onnx"
    export(model, shape, path, arguments.exporter)
    gradient = arguments.gradient
    derivation = None
    if gradient is None:
        gradient = folder / "resnet18-32.gradient.onnx"
        derivation = derive(arguments.mohs, path, gradient, arguments.derivations)

    torch.manual_seed(SEED)
    x, y = torch.rand(arguments.batch, *shape), torch.randint(0, 10, (arguments.batch,))
    folded_model = folded(model)
    steps = {
        "mohs, ONNX Runtime": onnxruntime_step(gradient, x, y, arguments.threads),
        "PyTorch, eager": pytorch_step(model, x, y),
        "PyTorch, BatchNorm folded, channels-last": pytorch_step(folded_model, x.to(memory_format=torch.channels_last), y),
    }
    exact = pytorch_step(copy.deepcopy(model).double(), x.double(), y)()[1].numpy()
    differences = {name: relative_difference(step()[1], exact) for name, step in steps.items()}
    taken = timed_in_turn(steps, arguments.rounds, arguments.warmups)

    ours = taken["mohs, ONNX Runtime"]
    rows = []
    for name, times in taken.items():
        ratio = statistics.median(our / their for our, their in zip(ours, times))
        low, high = np.quantile(times, [0.1, 0.9])
        worst, median = differences[name]
        rows.append([name, f"{statistics.median(times):.1f}", f"{low:.1f} to {high:.1f}", f"{ratio:.3f}", f"{worst:.1e}", f"{median:.1e}"])
    print(f"\nOne gradient step of ResNet-18 for 32×32, batch {arguments.batch}, {arguments.threads} threads, {arguments.rounds} rounds in turn:\n")
    print(table(["step", "median ms", "10 % to 90 %", "mohs / this", "difference, worst sample", "median sample"], rows))
    return derivation, statistics.median(our / their for our, their in zip(ours, taken["PyTorch, BatchNorm folded, channels-last"]))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mohs", default="target/release/mohs", help="the mohs program (default: %(default)s)")
    parser.add_argument("--gradient", type=pathlib.Path, help="time this gradient graph of the exported ResNet-18 instead of deriving one")
    parser.add_argument("--export", type=pathlib.Path, metavar="DIR", help="keep the exported models and gradient graphs in this folder")
    parser.add_argument("--exporter", choices=["legacy", "dynamo"], default="legacy", help="which of PyTorch's exporters writes the models")
    parser.add_argument("--only-export", action="store_true", help="write the models (see --export) and stop")
    parser.add_argument("--batch", type=int, default=32, help="samples per step (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="threads for either side (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=21, help="timed rounds (default: %(default)s)")
    parser.add_argument("--warmups", type=int, default=3, help="untimed runs before (default: %(default)s)")
    parser.add_argument("--derivations", type=int, default=3, help="timed runs of `mohs gradient` (default: %(default)s)")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    logging.disable(logging.WARNING)
    if arguments.only_export and arguments.export is None:
        parser.error("--only-export needs --export DIR")

    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.export or pathlib.Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        large = folder / "resnet50-224.onnx"
        if arguments.only_export:
            export(prepared(resnet18_for_32, (3, 32, 32)), (3, 32, 32), folder / "resnet18-32.onnx", arguments.exporter)
            export(prepared(resnet50, (3, 224, 224)), (3, 224, 224), large, arguments.exporter)
            return
        import onnxruntime

        print(f"{processor()}; Python {platform.python_version()}, torch {torch.__version__}, torchvision {torchvision.__version__}, ", end="")
        print(f"onnxruntime {onnxruntime.__version__}")
        derivation, ratio = compare_steps(arguments, folder)
        print(f"\nGoal: at most {LIMIT_STEP} × PyTorch folded, channels-last. Measured: {ratio:.3f} ×.")
        if derivation is None:
            return
        export(prepared(resnet50, (3, 224, 224)), (3, 224, 224), large, arguments.exporter)
        seconds = {"ResNet-18, 32×32": derivation, "ResNet-50, 224×224": derive(arguments.mohs, large, folder / "resnet50-224.gradient.onnx", arguments.derivations)}
        rows = [[name, f"{statistics.median(times):.2f}", f"{min(times):.2f} to {max(times):.2f}"] for name, times in seconds.items()]
        print(f"\n`mohs gradient`, process start and files included, {arguments.derivations} runs:\n")
        print(table(["model", "median s", "all"], rows))
        measured = statistics.median(seconds["ResNet-50, 224×224"])
        print(f"\nGoal: under {LIMIT_DERIVATION_SECONDS:.0f} s for ResNet-50. Measured: {measured:.2f} s.")


if __name__ == "__main__":
    main()
