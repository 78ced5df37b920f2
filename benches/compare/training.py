#!/usr/bin/env python3
"""Times the steps of adversarial training: mohs's training graphs on ONNX Runtime against PyTorch, in turn in one process.

    cargo build --release
    python3 benches/compare/training.py --mohs target/release/mohs

For each network, two steps: the weight step (forward, the gradients of all parameters and of the input, batch statistics) and the attack's step
(forward and the gradient of the input, running statistics), both with the weights as inputs, as they are while training.
`pgd` with K = 7 takes seven attack's steps and one weight step, `free` one weight step with both gradients, `standard` one weight step: the last
columns are the ratios of these sums.
The gradients of the parameters are compared with PyTorch's in float64 first.

Made for Python 3.11, torch 2.15.0, torchvision 0.29.2, onnx 1.23.2, onnxruntime 1.31.1, numpy 2.4.6; seeded.
"""

import argparse
import contextlib
import copy
import io
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
import warnings

import numpy as np
import onnxruntime
import torch
from onnx import load, numpy_helper
from torch import nn
from torch.nn import functional

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from step import resnet18_for_32  # noqa: E402

ATTACK_STEPS = 7


def small():
    """Two convolutions of kernel 4 and stride 2, two linear layers: the small network of the verification benchmarks."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 4, stride=2), nn.ReLU(), nn.Conv2d(16, 32, 4, stride=2), nn.ReLU(),
        nn.Flatten(), nn.Linear(800, 100), nn.ReLU(), nn.Linear(100, 10),
    )


def medium():
    """Four convolutions of kernel 3, every other of stride 2, two linear layers."""
    return nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 32, 3, stride=2, padding=1), nn.ReLU(),
        nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.Conv2d(64, 64, 3, stride=2, padding=1), nn.ReLU(),
        nn.Flatten(), nn.Linear(3136, 256), nn.ReLU(), nn.Linear(256, 10),
    )


NETWORKS = {
    "mnist-small": (small, (1, 28, 28), 128),
    "mnist-medium": (medium, (1, 28, 28), 128),
    "resnet18-32": (resnet18_for_32, (3, 32, 32), 32),
}


def export(model, shape, path):
    """Writes the model with nothing folded, so that it can be trained."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model, torch.rand(2, *shape), path, dynamo=False, opset_version=17, do_constant_folding=False,
            training=torch.onnx.TrainingMode.PRESERVE, input_names=["input"], output_names=["logits"],
            dynamic_axes={"input": {0: "batch"}, "logits": {0: "batch"}},
        )


def derive(mohs, model, out, *arguments):
    """Lets mohs derive a graph."""
    subprocess.run([mohs, "gradient", model, "-o", out, "--parameters", *arguments], check=True, stderr=subprocess.DEVNULL)


def attack_graph(path):
    """The graph of a weight step without its parameters' gradients: what is left is the attack's step."""
    model = load(path)
    kept = [output for output in model.graph.output if output.name in ("logits", "loss", "grad")]
    del model.graph.output[:]
    model.graph.output.extend(kept)
    needed, nodes = {output.name for output in kept}, []
    for node in reversed(model.graph.node):
        if needed & set(node.output):
            needed |= set(node.input)
            nodes.append(node)
    del model.graph.node[:]
    model.graph.node.extend(reversed(nodes))
    inputs = [value for value in model.graph.input if value.name in needed]
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    return model.SerializeToString()


def session(model, threads):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # What is left of a graph whose outputs were cut off names initializers that nothing reads.
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "1")
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def weight_step(model, x, labels, by_input):
    """PyTorch's gradients of the mean loss."""
    model.train()
    model.zero_grad()
    x = x.detach().requires_grad_(by_input)
    functional.cross_entropy(model(x), labels).backward()


def attack_step(model, x, labels):
    """PyTorch's gradient of the input alone."""
    model.eval()
    x = x.detach().requires_grad_()
    return torch.autograd.grad(functional.cross_entropy(model(x), labels), x)[0]


def check(model, x, labels, names, found):
    """The largest relative difference of a parameter's gradient from PyTorch's in float64."""
    double = copy.deepcopy(model).double()
    weight_step(double, x.double(), labels, False)
    worst = 0.0
    for name, parameter in double.named_parameters():
        ours = found[names.index(f"grad.{name}")]
        worst = max(worst, float(np.linalg.norm(ours - parameter.grad.numpy()) / max(1e-30, parameter.grad.norm().item())))
    return worst


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mohs", required=True)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--only", nargs="*", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--cpu-time", action="store_true", help="count the process's CPU time, for a machine that is busy (with --threads 1)")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    clock = time.process_time if arguments.cpu_time else time.perf_counter
    print("network          step        mohs ms  PyTorch ms  ratio")
    for name in arguments.only:
        build, shape, batch = NETWORKS[name]
        torch.manual_seed(7)
        model = build().eval()
        x, labels = torch.rand(batch, *shape), torch.randint(0, 10, (batch,))
        with tempfile.TemporaryDirectory() as folder:
            file, train, run = (str(pathlib.Path(folder) / part) for part in ("model.onnx", "train.onnx", "run.onnx"))
            export(model, shape, file)
            derive(arguments.mohs, file, train)
            derive(arguments.mohs, file, run, "--batch-norm", "frozen")
            feeds = {tensor.name: numpy_helper.to_array(tensor) for tensor in load(file).graph.initializer}
            identities = {node.output[0]: node.input[0] for node in load(file).graph.node if node.op_type == "Identity"}
            feeds.update({to: feeds[of] for to, of in identities.items() if of in feeds})
            weights = session(train, arguments.threads)
            attack = session(attack_graph(run), arguments.threads)
        feeds.update(input=x.numpy(), labels=labels.numpy())
        of = lambda one: {port.name: feeds[port.name] for port in one.get_inputs()}
        names = [port.name for port in weights.get_outputs()]
        without_input = [port for port in names if port != "grad"]
        worst = check(model, x, labels, names, weights.run(None, of(weights)))
        steps = {
            "weights": (lambda: weights.run(without_input, of(weights)), lambda: weight_step(model, x, labels, False)),
            "both": (lambda: weights.run(None, of(weights)), lambda: weight_step(model, x, labels, True)),
            "attack": (lambda: attack.run(None, of(attack)), lambda: attack_step(model, x, labels)),
        }
        times = {(step, side): [] for step in steps for side in (0, 1)}
        for number in range(arguments.rounds + 3):
            for step, sides in steps.items():
                for side, run_once in enumerate(sides):
                    start = clock()
                    run_once()
                    if number >= 3:
                        times[step, side].append(clock() - start)
        median = {key: statistics.median(values) for key, values in times.items()}
        for step in steps:
            ours, theirs = (1e3 * median[step, side] for side in (0, 1))
            print(f"{name:16} {step:8} {ours:10.2f} {theirs:11.2f} {ours / theirs:6.2f}", flush=True)
        pgd = [ATTACK_STEPS * median["attack", side] + median["weights", side] for side in (0, 1)]
        print(f"{name:16} pgd-{ATTACK_STEPS}    {1e3 * pgd[0]:10.2f} {1e3 * pgd[1]:11.2f} {pgd[0] / pgd[1]:6.2f}   (largest error of a gradient {worst:.1e})", flush=True)


if __name__ == "__main__":
    main()
