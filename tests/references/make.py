#!/usr/bin/env python3
"""Makes the gradient references of this folder: for each case NAME.onnx, NAME.npz and a row of manifest.csv.

    python3 tests/references/make.py            # all of them
    python3 tests/references/make.py --only conv_2d lenet

The weights are random and float32; the gradients are PyTorch's, computed in float64 with these same weights.
Every file is run once by ONNX Runtime and compared with PyTorch before it is kept.
What the arrays are: README.md beside this script.

Made with Python 3.11, torch 2.15.0, onnx 1.23.2, onnxscript 0.7.2, onnxruntime 1.31.1, numpy 2.4.6; one thread, seeded by the case's name.
"""

import argparse
import contextlib
import copy
import csv
import io
import logging
import pathlib
import re
import sys
import warnings
import zlib

import numpy as np
import onnx
import onnxruntime
import torch
from torch.nn import functional

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import cases_arithmetic  # noqa: E402, F401
import cases_layers  # noqa: E402, F401
import cases_networks  # noqa: E402, F401
import cases_recurrent  # noqa: E402, F401
import handmade  # noqa: E402
import handmade_control  # noqa: E402, F401
from case import CASES, input_of, randomise  # noqa: E402

COLUMNS = ["name", "exporter", "opset", "pinned_batch", "input_shape", "classes", "losses", "float32_error", "operators"]


def export(module, example, path, how, pinned):
    """Writes the module as `how` says (`legacy13`, `legacy9+unfolded`, `dynamo18`), the batch dynamic unless pinned; gives exporter and opset."""
    exporter, opset, unfolded = re.fullmatch(r"(legacy|dynamo)(\d+)(\+unfolded)?", how).groups()
    options = {"input_names": ["input"], "output_names": ["logits"], "opset_version": int(opset)}
    said = io.StringIO()
    with warnings.catch_warnings(), contextlib.redirect_stdout(said):
        warnings.simplefilter("ignore")
        if exporter == "dynamo":
            batch = None if pinned else ({0: torch.export.Dim("batch")},)
            torch.onnx.export(module, (example,), path, dynamo=True, dynamic_shapes=batch, external_data=False, verbose=False, **options)
        else:
            axes = None if pinned else {"input": {0: "batch"}, "logits": {0: "batch"}}
            if unfolded:
                options.update(training=torch.onnx.TrainingMode.PRESERVE, do_constant_folding=False)
            torch.onnx.export(module, (example,), path, dynamo=False, dynamic_axes=axes, **options)
    return exporter, int(opset)


def without_traces(path):
    """Takes the exporter's notes (stack traces with the paths of the exporting machine) out of a file; nothing else changes."""
    model = onnx.load(path)
    for graph in [model.graph, *model.functions]:
        del graph.metadata_props[:]
        for node in graph.node:
            del node.metadata_props[:]
            node.doc_string = ""
    for value in [*model.graph.input, *model.graph.output, *model.graph.value_info, *model.graph.initializer]:
        del value.metadata_props[:]
    onnx.save(model, path)
    return model


def loss_of(name, logits, labels):
    """The loss of each sample: cross-entropy, margin max_{i≠y} z_i − z_y, or the difference-of-logits ratio."""
    if name == "cross-entropy":
        return functional.cross_entropy(logits, labels, reduction="none")
    own = logits.gather(1, labels[:, None])[:, 0]
    others = logits.scatter(1, labels[:, None], -torch.inf).amax(1)
    if name == "margin":
        return others - own
    ranked = logits.sort(dim=1, descending=True).values
    return -(own - others) / (ranked[:, 0] - ranked[:, 2] + 1e-12)


def gradient_of(module, x, labels, loss):
    """Logits, losses and d(sum of losses)/dx, in the type of `x`."""
    x = x.clone().requires_grad_(True)
    logits = module(x)
    losses = loss_of(loss, logits, labels)
    (gradient,) = torch.autograd.grad(losses.sum(), x)
    return logits.detach(), losses.detach(), gradient


def references(module, x, labels, losses, softmax_head):
    """The arrays of one case in float64, and how far float32 autograd is from them (relative to the sample's largest gradient)."""
    exact = copy.deepcopy(module).double()
    arrays = {"x": x.numpy(), "labels": labels.numpy()}
    heads = {"": exact}
    if softmax_head:
        heads["_from_logits"] = exact[:-1]
    for suffix, head in heads.items():
        for loss in losses:
            logits, values, gradient = gradient_of(head, x.double(), labels, loss)
            part = "" if loss == "cross-entropy" else f"_{loss}"
            arrays[f"logits{suffix}"] = logits.numpy()
            arrays[f"loss{part}{suffix}"] = values.numpy()
            arrays[f"grad{part}{suffix}"] = gradient.numpy()
    _, _, single = gradient_of(module, x, labels, "cross-entropy")
    difference, size = (np.abs(array).reshape(len(x), -1).max(1) for array in (single.numpy() - arrays["grad"], arrays["grad"]))
    return arrays, float((difference / np.where(size > 0, size, 1)).max())


def check(name, path, arrays, pinned, error, beyond_float32=False):
    """Refuses a file that ONNX Runtime runs differently, a gradient that float32 cannot confirm, and a gradient that says nothing."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    x = arrays["x"]
    batches = [x[i : i + 1] for i in range(len(x))] if pinned else [x]
    logits = np.concatenate([session.run(None, {session.get_inputs()[0].name: batch})[0] for batch in batches])
    difference = np.abs(logits - arrays["logits"]).max() / max(1.0, np.abs(arrays["logits"]).max())
    assert logits.shape == arrays["logits"].shape, (name, logits.shape, arrays["logits"].shape)
    assert difference < 2e-5, (name, "ONNX Runtime differs from PyTorch by", difference)
    assert error < 1e-4 or beyond_float32, (name, "float32 and float64 gradients differ by", error)
    assert all(np.isfinite(array).all() for array in arrays.values()), name
    assert np.abs(arrays["grad"]).max() > 1e-12, (name, "no gradient")


def operators(model):
    """The operators of the graph, each with the number of its nodes."""
    counts = {}
    for node in model.graph.node:
        kind = node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}::{node.op_type}"
        counts[kind] = counts.get(kind, 0) + 1
    return " ".join(f"{kind}:{count}" for kind, count in sorted(counts.items()))


def exported(case, out):
    """Makes every file of one case; yields its rows of the manifest."""
    for how in case.exports:
        name = f"{case.name}-{how.replace('+', '-')}"
        generator = torch.Generator().manual_seed(zlib.crc32(case.name.encode()))
        torch.manual_seed(zlib.crc32(case.name.encode()))
        module = case.build()
        randomise(module, generator)
        module.eval()
        x = input_of(case, generator)
        labels = torch.randint(0, case.classes, (3,), generator=generator)
        if case.options.get("labels") == "predicted":
            labels = module(x).argmax(1)
        path = out / f"{name}.onnx"
        exporter, opset = export(module, x[: 1 if case.pinned else 2], path, how, case.pinned)
        model = without_traces(path)
        assert model.opset_import[0].version == opset, (name, model.opset_import)
        arrays, error = references(module, x, labels, case.losses, case.options.get("softmax_head", False))
        yield kept(name, path, model, arrays, error, exporter, opset, case.pinned, case.losses, out, case.options.get("beyond_float32", False))


def made_by_hand(case, out):
    """Makes the files of one case whose ONNX graph is written node by node."""
    generator = torch.Generator().manual_seed(zlib.crc32(case.name.encode()))
    x = input_of(case, generator)
    labels = torch.randint(0, case.classes, (3,), generator=generator)
    module, model = case.build(generator)
    path = out / f"{case.name}.onnx"
    onnx.checker.check_model(model)
    onnx.save(model, path)
    arrays, error = references(module, x, labels, ("cross-entropy",), False)
    return kept(case.name, path, model, arrays, error, "handmade", model.opset_import[0].version, case.pinned, ("cross-entropy",), out)


def kept(name, path, model, arrays, error, exporter, opset, pinned, losses, out, beyond_float32=False):
    """Checks the file, writes the arrays, gives the row of the manifest."""
    check(name, path, arrays, pinned, error, beyond_float32)
    np.savez_compressed(out / f"{name}.npz", **arrays)
    shape = "x".join(map(str, arrays["x"].shape[1:]))
    classes = arrays["logits"].shape[1]
    row = [name, exporter, opset, "yes" if pinned else "no", shape, classes, " ".join(losses), f"{error:.1e}", operators(model)]
    print(f"{name}: {path.stat().st_size} bytes, float32 error {error:.1e}", file=sys.stderr)
    return dict(zip(COLUMNS, row))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=pathlib.Path, default=HERE, help="folder to write to (default: this script's)")
    parser.add_argument("--only", nargs="+", metavar="CASE", help="make these cases only, and leave the manifest as it is")
    parser.add_argument("--keep-going", action="store_true", help="report a case that cannot be made and go on")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)

    rows, failures = [], []
    makers = {name: (lambda case=case: list(exported(case, arguments.out))) for name, case in CASES.items()}
    makers |= {name: (lambda case=case: [made_by_hand(case, arguments.out)]) for name, case in handmade.CASES.items()}
    for name, make in makers.items():
        if arguments.only and name not in arguments.only:
            continue
        try:
            rows += make()
        except Exception as error:  # noqa: BLE001: said at the end, with the name of the case
            if not arguments.keep_going:
                raise
            failures.append(f"{name}: {type(error).__name__}: {str(error)[:300]}")
    if not arguments.only:
        with open(arguments.out / "manifest.csv", "w", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(sorted(rows, key=lambda row: row["name"]))
    print("\n".join(failures) or f"{len(rows)} references made")


if __name__ == "__main__":
    main()
