#!/usr/bin/env python3
"""Peak memory of five gradient steps: PyTorch's backward pass and mohs, each in a process of its own.

    python3 benches/compare/memory.py [--mohs target/release/mohs] [resnet18 resnet50 vit]

PyTorch holds the model with frozen weights and takes the gradient by its input; mohs runs `evaluate` with `pgd:steps=5` on one batch that is right and
stays so (an ε that changes nothing), which holds the judge beside the gradient. Both load no more than they need; the peak is what the kernel counts as
resident, the interpreter and the libraries included, so the peak before the first step is shown as well.

Needs torch and torchvision.
"""

import argparse
import pathlib
import resource
import subprocess
import sys
import tempfile

CASES = {"resnet18": (32, 32), "resnet50": (8, 224), "vit": (8, 224)}


def build(name, image):
    import torch
    import torchvision

    torch.manual_seed(0)
    if name == "resnet18":
        model = torchvision.models.resnet18(num_classes=10)
        # The form for small images: no stem that shrinks them.
        model.conv1 = torch.nn.Conv2d(3, 64, 3, padding=1, bias=False)
        model.maxpool = torch.nn.Identity()
    elif name == "resnet50":
        model = torchvision.models.resnet50()
    else:
        # The fused attention of inference has no ONNX form.
        torch.backends.mha.set_fastpath_enabled(False)
        model = torchvision.models.vit_b_16()
    return model.eval().requires_grad_(False)


def export(name, folder):
    import numpy as np
    import torch

    batch, image = CASES[name]
    model = build(name, image)
    x = torch.rand(batch, 3, image, image)
    torch.onnx.export(model, (x,), folder / "model.onnx", dynamo=False, opset_version=17, input_names=["x"], output_names=["logits"],
                      dynamic_axes={"x": {0: "n"}, "logits": {0: "n"}})
    np.savez(folder / "data.npz", x=x.numpy(), y=model(x).argmax(1).numpy())


def pytorch(name):
    import torch

    batch, image = CASES[name]
    torch.manual_seed(0)
    model, x = build(name, image), torch.rand(batch, 3, image, image)
    labels = model(x[:1]).argmax(1).expand(batch)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(5):
        x = x.detach().requires_grad_(True)
        torch.nn.functional.cross_entropy(model(x), labels, reduction="sum").backward()
        x = x + 1e-6 * x.grad.sign()
    print(before)


def peak(command):
    """The peak of a process in MiB, and its output."""
    code = ("import resource, subprocess, sys\n"
            "done = subprocess.run(sys.argv[1:], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)\n"
            "sys.stderr.write(done.stderr if done.returncode else '')\n"
            "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, done.stdout.strip().splitlines()[-1], sep='\\t')\n")
    done = subprocess.run([sys.executable, "-c", code, *map(str, command)], stdout=subprocess.PIPE, text=True, check=True)
    kilobytes, last = done.stdout.strip().split("\t")
    return int(kilobytes) / 1024, last


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", default=["resnet18", "resnet50"])
    parser.add_argument("--mohs", default="target/release/mohs")
    parser.add_argument("--inner", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.inner:
        kind, name, folder = arguments.inner.split(":")
        return pytorch(name) if kind == "pytorch" else export(name, pathlib.Path(folder))
    me = [sys.executable, __file__, "--inner"]
    print("| model | batch | PyTorch, MiB (before the first step) | mohs, MiB | gradient graph alone in ONNX Runtime |")
    print("| --- | --- | --- | --- | --- |")
    for name in arguments.models:
        batch, _ = CASES[name]
        with tempfile.TemporaryDirectory() as folder:
            subprocess.run([*me, f"export:{name}:{folder}"], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            torch_peak, before = peak([*me, f"pytorch:{name}:"])
            evaluate = [arguments.mohs, "evaluate", f"{folder}/model.onnx", "--data", f"{folder}/data.npz", "--epsilon", "1e-9",
                        "--bounds", "none", "--batch-size", batch]
            mohs_peak, _ = peak([*evaluate, "--attack", "pgd:steps=5,random_start=false"])
            subprocess.run([arguments.mohs, "gradient", f"{folder}/model.onnx", "-o", f"{folder}/g.onnx"], check=True, stderr=subprocess.DEVNULL)
            code = ("import numpy, onnxruntime as o, sys; d = numpy.load(sys.argv[2]); s = o.InferenceSession(sys.argv[1], providers=['CPUExecutionProvider'])\n"
                    "for _ in range(5): s.run(['loss', 'grad'], {'x': d['x'], 'labels': d['y']})\n"
                    "print(0)")
            alone, _ = peak([sys.executable, "-c", code, f"{folder}/g.onnx", f"{folder}/data.npz"])
        print(f"| {name} | {batch} | {torch_peak:.0f} ({int(before) / 1024:.0f}) | {mohs_peak:.0f} | {alone:.0f} |", flush=True)


if __name__ == "__main__":
    main()
