#!/usr/bin/env python3
"""Exports the zoo and computes PyTorch's gradients: NAME-EXPORTER.onnx, .npz and .json in a folder outside the repository.

    python3 tests/zoo/export.py OUT                       # everything, by both exporters (an hour on two cores)
    python3 tests/zoo/export.py OUT --exporter legacy     # one exporter
    python3 tests/zoo/export.py OUT --only vit swin       # names that contain one of these

Weights are random, with the seed fixed by the name; batch normalisation is calibrated on random data so that deep networks stay in range.
The arrays, at a batch of three: `x` (or token ids), `labels`, and in float64 `logits`, `loss`, `grad` (by `x`, or by the embedding of the tokens).
The json says exporter, opset, whether the batch is pinned, the tensor to differentiate by, and how far float32 autograd is from float64.
Samples are drawn where no unit is within rounding of its kink (kinks.py); the json says how far from it they stay.
What is there already is left alone; `--again` makes it anew. An architecture that PyTorch cannot export is noted in failed.csv and skipped.

Made with Python 3.11, torch 2.15.0, torchvision 0.29.2, timm 1.0.31, transformers 5.24.0, onnx 1.23.2, onnxscript 0.7.2, onnxruntime 1.31.1.
"""

import argparse
import contextlib
import copy
import csv
import io
import json
import logging
import os
import pathlib
import sys
import time
import warnings
import zlib

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TIMM_FUSED_ATTN", "0")

import numpy as np
import onnx
import onnxruntime
import torch
from torch import nn
from torch.nn import functional

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

import kinks  # noqa: E402
import models  # noqa: E402
import more  # noqa: E402, F401

# A sample is drawn again until its units are this many times farther from their kinks than float32 is from float64, so many times at most.
MARGIN = 4.0
DRAWS = 40
OPSETS = [17, 13, 11, 14, 9, 16, 12]


def randomise(module, generator):
    """No parameter stays at zero or one, where a branch would be silent; the running statistics are those of random data."""
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.dim() <= 1 or parameter.std() == 0:
                parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
            elif parameter.std() < 0.03:
                # Initial weights of 0.02 say nothing through many layers: width-preserving ones do.
                fan = parameter.numel() / parameter.shape[0]
                parameter.copy_(torch.randn(parameter.shape, generator=generator) / max(fan, 1) ** 0.5)


def calibrate(module, entry, generator):
    """Sets running statistics to those of a random batch."""
    norms = [layer for layer in module.modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm) and layer.track_running_stats]
    if not norms:
        return
    for layer in norms:
        layer.train()
        layer.momentum = 1.0
    batch = torch.cat([models.example_of(entry, generator) for _ in range(4)])
    with torch.no_grad(), contextlib.suppress(ValueError):
        module(batch)
    for layer in norms:
        # A plane of one pixel has a variance of its few samples only: kept away from zero.
        layer.running_var.clamp_(min=0.05)
    module.eval()


def make(entry):
    seed = zlib.crc32(entry.name.encode())
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    module = entry.build().eval()
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    randomise(module, generator)
    calibrate(module, entry, generator)
    x = models.example_of(entry, generator)
    labels = torch.randint(0, models.CLASSES, (models.BATCH,), generator=generator)
    return module, *away_from_kinks(module, entry, x, generator), labels


def away_from_kinks(module, entry, x, generator):
    """The samples, each drawn again until the network has a gradient there that rounding does not decide; and the smallest margin."""
    exact = copy.deepcopy(module).double()
    rows, margins = [], []
    for row in x.split(1):
        best, reached = row, kinks.margin(module, exact, row)
        for _ in range(DRAWS):
            if reached >= MARGIN:
                break
            drawn = models.example_of(entry, generator)[:1]
            found = kinks.margin(module, exact, drawn)
            if found > reached:
                best, reached = drawn, found
        rows.append(best)
        margins.append(reached)
    return torch.cat(rows), min(margins)


def gradient_of(module, entry, x, labels):
    """Logits, losses and d(sum of losses) by the input or by what the embedding gives."""
    if entry.embedding is None:
        x = x.clone().requires_grad_(True)
        logits = module(x)
        wrt = x
    else:
        seen = []

        def keep(_module, _inputs, output):
            output = output.detach().requires_grad_(True)
            seen.append(output)
            return output

        hook = entry.embedding(module).register_forward_hook(keep)
        logits = module(x)
        hook.remove()
        (wrt,) = seen
    losses = functional.cross_entropy(logits, labels, reduction="none")
    (gradient,) = torch.autograd.grad(losses.sum(), wrt)
    if entry.embedding is not None:
        # Gemma's embedding multiplies what it looks up; the tensor in the file is from before that.
        gradient = gradient * getattr(entry.embedding(module), "embed_scale", 1.0)
    return logits.detach(), losses.detach(), gradient.movedim(entry.batch_axis, 0).contiguous()


def relative(found, expected):
    return float(np.linalg.norm((found - expected).ravel()) / max(np.linalg.norm(expected.ravel()), 1e-300))


def noise_of(module, entry, x, labels, exact):
    """How far PyTorch's float32 gradient is from the exact one: the largest over four ways to compute it, which round differently.

    One way alone says little where a unit is within rounding of its kink: whether it falls on the other side is chance.
    """
    noise = {"1": 0.0, "3": 0.0}
    for kernels in (True, False):
        for nudge in (False, True):
            moved = x
            if nudge and entry.embedding is None:
                moved = torch.nextafter(x, torch.full_like(x, 2.0))
            with torch.backends.mkldnn.flags(enabled=kernels):
                for size in (1, len(x)):
                    _, _, single = gradient_of(module, entry, moved[:size], labels[:size])
                    noise[str(size)] = max(noise[str(size)], relative(single.double().numpy(), exact[:size]))
    return noise


def references(module, entry, x, labels):
    exact = copy.deepcopy(module).double()
    logits, losses, gradient = gradient_of(exact, entry, x.double() if entry.embedding is None else x, labels)
    gradient = gradient.numpy()
    noise = noise_of(module, entry, x, labels, gradient)
    arrays = {"x": x.numpy(), "labels": labels.numpy(), "logits": logits.double().numpy(), "loss": losses.double().numpy(), "grad": gradient}
    if not all(np.isfinite(array).all() for array in arrays.values()) or not np.abs(gradient).max() > 0:
        raise ValueError("the reference gradient says nothing")
    return arrays, noise


def export(module, x, path, exporter, opset, pinned):
    options = {"input_names": ["input"], "output_names": ["logits"], "opset_version": opset}
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()), torch.no_grad():
        warnings.simplefilter("ignore")
        if exporter == "dynamo":
            shapes = None if pinned else ({0: torch.export.Dim("batch")},)
            torch.onnx.export(module, (x,), path, dynamo=True, dynamic_shapes=shapes, external_data=False, verbose=False, **options)
        else:
            axes = None if pinned else {"input": {0: "batch"}, "logits": {0: "batch"}}
            torch.onnx.export(module, (x,), path, dynamo=False, dynamic_axes=axes, **options)


def embedding_tensor(path, entry, module):
    """The name of the tensor that holds the embedded tokens: what Gather takes out of the embedding's weights."""
    shape = list(entry.embedding(module).weight.shape)
    graph = onnx.load(path).graph
    weights = {tensor.name for tensor in graph.initializer if list(tensor.dims) == shape}
    found = [node.output[0] for node in graph.node if node.op_type == "Gather" and node.input[0] in weights and node.input[1] != ""]
    if len(found) != 1:
        raise ValueError(f"{len(found)} tensors could be the embedding")
    return found[0]


def runs_as(path, x, logits, pinned):
    """Refuses a file that ONNX Runtime runs differently from PyTorch: the exporter's fault, not what the zoo is about."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    for size in (1,) if pinned else (1, len(x)):
        found = session.run(["logits"], {name: x[:size]})[0]
        error = relative(found.astype(np.float64), logits[:size])
        if not error < 2e-3:
            raise ValueError(f"the export computes other logits (relative error {error:.1e} at batch {size})")


def attempts(exporter, number):
    """Opset and pinned batch, the first that works is taken; each fifth model has its batch pinned."""
    pinned = number % 5 == 4
    if exporter == "dynamo":
        return [(18, pinned), (18, not pinned)]
    opset = OPSETS[number % len(OPSETS)]
    higher = sorted({wanted for wanted in OPSETS if wanted > opset})
    return [(opset, pinned), *((wanted, pinned) for wanted in higher), (17, not pinned)]


def renew(entry, exporter, out):
    """Draws the samples and computes the references again, for a model that is exported already."""
    path = out / f"{entry.name}-{exporter}.json"
    module, x, margin, labels = make(entry)
    about = json.loads(path.read_text())
    arrays, about["noise"] = references(module, entry, x, labels)
    about["margin"] = margin if np.isfinite(margin) else None
    runs_as(path.with_suffix(".onnx"), arrays["x"], arrays["logits"], about["pinned"])
    np.savez(path.with_suffix(".npz"), **arrays)
    path.write_text(json.dumps(about, indent=1) + "\n")
    return f"margin {margin:.1f}, noise {about['noise']}"


def one(entry, number, exporter, out):
    begin = time.time()
    stem = out / f"{entry.name}-{exporter}"
    module, x, margin, labels = make(entry)
    arrays, noise = references(module, entry, x, labels)
    reasons = []
    for opset, pinned in attempts(exporter, number):
        path = str(stem) + ".onnx"
        try:
            export(copy.deepcopy(module), x[:1] if pinned else x[:2], path, exporter, opset, pinned)
            runs_as(path, arrays["x"], arrays["logits"], pinned)
            wrt = None if entry.embedding is None else embedding_tensor(path, entry, module)
        except Exception as error:  # noqa: BLE001
            reasons.append(f"{opset}{' pinned' if pinned else ''}: {type(error).__name__}: {' '.join(str(error).split())[:160]}")
            pathlib.Path(path).unlink(missing_ok=True)
            continue
        np.savez(str(stem) + ".npz", **arrays)
        about = {
            "name": entry.name, "family": entry.family, "kind": entry.kind, "exporter": exporter, "opset": opset, "pinned": pinned, "wrt": wrt, "batch_axis": entry.batch_axis, "noise": noise, "margin": margin if np.isfinite(margin) else None,
            "parameters": sum(parameter.numel() for parameter in module.parameters()),
        }
        stem.with_suffix(".json").write_text(json.dumps(about, indent=1) + "\n")
        return f"opset {opset}{' pinned' if pinned else ''}, {time.time() - begin:.0f} s"
    raise ValueError("; ".join(reasons))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--exporter", choices=["legacy", "dynamo"], nargs="*", default=["legacy", "dynamo"])
    parser.add_argument("--only", nargs="*", default=[], help="parts of names")
    parser.add_argument("--part", default="1/1", help="K/N: every N-th model, from the K-th")
    parser.add_argument("--again", action="store_true", help="also what is there already")
    parser.add_argument("--references", action="store_true", help="only draw samples and compute references again, of what is there")
    arguments = parser.parse_args()
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    arguments.out.mkdir(parents=True, exist_ok=True)
    part, parts = map(int, arguments.part.split("/"))
    for exporter in arguments.exporter:
        for number, entry in enumerate(models.ENTRIES.values()):
            if number % parts != part - 1 or (arguments.only and not any(text in entry.name for text in arguments.only)):
                continue
            there = (arguments.out / f"{entry.name}-{exporter}.json").exists()
            if arguments.references and not there or not arguments.references and not arguments.again and there:
                continue
            try:
                said = renew(entry, exporter, arguments.out) if arguments.references else one(entry, number, exporter, arguments.out)
                print(f"{entry.name}-{exporter}: {said}", flush=True)
            except Exception as error:  # noqa: BLE001
                reason = " ".join(str(error).split())[:400]
                print(f"{entry.name}-{exporter}: FAILED {type(error).__name__}: {reason}", flush=True)
                with open(arguments.out / "failed.csv", "a", newline="") as file:
                    csv.writer(file).writerow([entry.name, exporter, reason])


if __name__ == "__main__":
    main()
