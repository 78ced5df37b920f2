#!/usr/bin/env python3
"""Times a robustness curve: `mohs evaluate` against torchattacks, Foolbox and ART on the same model, samples, radii, steps and restarts.

    python3 benches/compare/curve.py --mohs target/release/mohs --model net.onnx --data mnist_test.npz

The model is a chain of Conv, Gemm, MatMul, Add, Relu and reshapes with one input, which is rebuilt in PyTorch from its ONNX file and held to ONNX
Runtime's scores first. Every contender runs in a process of its own, in turn, round after round, on the same number of threads, and uses its own
way to restart: `MultiAttack` in torchattacks, `repeat` in Foolbox, `num_random_init` in ART, `restarts=` in mohs. Seconds are those of the attack
itself, without start and model; for mohs they are those of the whole command. Peak memory is that of the process.

Needs: numpy, onnx, onnxruntime, torch, torchattacks, foolbox, adversarial-robustness-toolbox.
"""

import argparse
import csv
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np

SEED = 0
PEERS = ["torchattacks", "foolbox", "art"]


def load(path):
    """The ONNX chain as a PyTorch module."""
    import onnx
    import torch
    from onnx import numpy_helper
    from torch.nn import functional

    graph = onnx.load(path).graph
    weights = {tensor.name: torch.from_numpy(numpy_helper.to_array(tensor).copy()) for tensor in graph.initializer}
    inputs = [port.name for port in graph.input if port.name not in weights]
    steps = []
    for node in graph.node:
        attributes = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
        if node.op_type == "Constant":
            weights[node.output[0]] = torch.from_numpy(numpy_helper.to_array(attributes["value"]).copy())
        else:
            steps.append((node.op_type, list(node.input), node.output[0], attributes))

    class Chain(torch.nn.Module):
        def forward(self, x):
            known = {inputs[0]: x}
            value = lambda name: known[name] if name in known else weights[name]
            for kind, names, output, attributes in steps:
                first = value(names[0])
                if kind == "Conv":
                    pads = attributes.get("pads", [0, 0, 0, 0])
                    assert pads[:2] == pads[2:], "asymmetric pads"
                    bias = value(names[2]) if len(names) > 2 else None
                    known[output] = functional.conv2d(first, value(names[1]), bias, attributes.get("strides", [1, 1]), pads[:2])
                elif kind == "Gemm":
                    assert not attributes.get("transA", 0)
                    matrix = value(names[1])
                    matrix = matrix.t() if attributes.get("transB", 0) else matrix
                    known[output] = first @ matrix + value(names[2])
                elif kind == "MatMul":
                    known[output] = first @ value(names[1])
                elif kind == "Add":
                    known[output] = first + value(names[1])
                elif kind == "Relu":
                    known[output] = functional.relu(first)
                elif kind in ("Flatten", "Reshape"):
                    known[output] = first.flatten(1)
                elif kind == "Transpose":
                    known[output] = first.permute(*attributes["perm"])
                else:
                    sys.exit(f"{path} has {kind}, which this script does not rebuild")
            return known[graph.output[0].name]

    return Chain().eval()


def samples(arguments):
    data = np.load(arguments.data)
    x = data["x"][: arguments.samples].astype(np.float32)
    x = x / 255 if data["x"].dtype == np.uint8 else x
    return x.reshape(len(x), 1, *x.shape[1:]) if x.ndim == 3 else x, data["y"][: arguments.samples].astype(np.int64)


def check(arguments, model, x):
    """The rebuilt model gives the scores that ONNX Runtime gives."""
    import onnxruntime
    import torch

    session = onnxruntime.InferenceSession(arguments.model, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    ours = np.concatenate([session.run(None, {name: row[None]})[0] for row in x[:8]])
    theirs = model(torch.from_numpy(x[:8])).detach().numpy()
    assert np.allclose(ours, theirs, rtol=1e-4, atol=1e-4), "the rebuilt model is another one"


def run_peer(arguments):
    """One contender, in this process: prints its seconds, its robust accuracies and its gradient evaluations."""
    import torch

    torch.manual_seed(SEED)
    np.random.seed(SEED)
    torch.set_num_threads(arguments.threads)
    model = load(arguments.model)
    x, y = samples(arguments)
    check(arguments, model, x)
    evaluated = 0

    def count(module, grad_input, grad_output):
        nonlocal evaluated
        evaluated += len(grad_output[0])

    model.register_full_backward_hook(count)
    x, y = torch.from_numpy(x), torch.from_numpy(y)

    def right(points):
        with torch.no_grad():
            return torch.cat([model(part).argmax(1) for part in points.split(arguments.batch)]) == y

    robust = []
    start = time.perf_counter()
    for epsilon in arguments.epsilon:
        step = 2.5 * epsilon / arguments.steps
        if arguments.contender == "torchattacks":
            import torchattacks

            pgd = [torchattacks.PGD(model, eps=epsilon, alpha=step, steps=arguments.steps) for _ in range(arguments.restarts)]
            attack = torchattacks.MultiAttack(pgd) if len(pgd) > 1 else pgd[0]
            points = torch.cat([attack(a, b) for a, b in zip(x.split(arguments.batch), y.split(arguments.batch))])
        elif arguments.contender == "foolbox":
            import foolbox

            wrapped = foolbox.PyTorchModel(model, bounds=(0, 1), device="cpu")
            attack = foolbox.attacks.LinfPGD(abs_stepsize=step, steps=arguments.steps, random_start=True).repeat(arguments.restarts)
            pairs = zip(x.split(arguments.batch), y.split(arguments.batch))
            points = torch.cat([attack(wrapped, a, b, epsilons=epsilon)[1] for a, b in pairs])
        else:
            from art.attacks.evasion import ProjectedGradientDescentPyTorch
            from art.estimators.classification import PyTorchClassifier

            wrapped = PyTorchClassifier(model, torch.nn.CrossEntropyLoss(), tuple(x.shape[1:]), 10, clip_values=(0, 1), device_type="cpu")
            attack = ProjectedGradientDescentPyTorch(
                wrapped, eps=epsilon, eps_step=step, max_iter=arguments.steps, num_random_init=arguments.restarts,
                batch_size=arguments.batch, verbose=False,
            )
            points = torch.from_numpy(attack.generate(x.numpy(), y.numpy()))
        robust.append(float(right(points).float().mean()))
    print(json.dumps({"seconds": time.perf_counter() - start, "robust": robust, "gradients": evaluated}))


def run_mohs(arguments, folder):
    command = [
        arguments.mohs, "--quiet", "evaluate", arguments.model, "--data", arguments.data, "--limit", str(arguments.samples),
        "--epsilon", ",".join(map(str, arguments.epsilon)), "--attack", f"pgd:steps={arguments.steps},restarts={arguments.restarts}",
        "--out", folder, "--threads", str(arguments.threads), *arguments.mohs_options.split(),
    ]
    start = time.perf_counter()
    code, memory = measured(command)[1:]
    assert code == 0, f"mohs ended with {code}"
    seconds = time.perf_counter() - start
    with open(pathlib.Path(folder) / "summary.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["attack"] != "worst-case"]
    return {
        "seconds": seconds, "robust": [float(row["robust_accuracy"]) for row in rows],
        "gradients": sum(int(row["gradient_evaluations"]) for row in rows), "memory": memory,
    }


def measured(command):
    """The output of a command, its exit code, and its peak memory in MB."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    text = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return text, process.returncode, usage.ru_maxrss / 1024


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mohs", help="the mohs binary")
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", required=True, help="an .npz file with x and y")
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--epsilon", type=lambda text: [float(part) for part in text.split(",")], default=[0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35])
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--restarts", type=int, default=5)
    parser.add_argument("--batch", type=int, default=250, help="of the PyTorch libraries")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--peers", type=lambda text: text.split(","), default=PEERS)
    parser.add_argument("--mohs-options", default="", help="further options of mohs evaluate, such as --device openvino")
    parser.add_argument("--contender", choices=PEERS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.contender:
        run_peer(arguments)
        return
    runs = {name: [] for name in ["mohs", *arguments.peers]}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(arguments.rounds):
            for name, found in runs.items():
                if name == "mohs":
                    found.append(run_mohs(arguments, folder))
                    continue
                text, code, memory = measured([sys.executable, __file__, *sys.argv[1:], "--contender", name])
                assert code == 0, f"{name} ended with {code}"
                found.append({**json.loads(text.splitlines()[-1]), "memory": memory})
                print(f"{name}: {found[-1]['seconds']:.1f} s", file=sys.stderr)
    print(f"\n{pathlib.Path(arguments.model).name}: {arguments.samples} samples, PGD-{arguments.steps}×{arguments.restarts}, {arguments.threads} threads, {arguments.rounds} rounds\n")
    print("| what | seconds | this / mohs | gradient evaluations | peak memory, MB | " + " | ".join(f"ε {e:g}" for e in arguments.epsilon) + " |")
    print("| --- " * (5 + len(arguments.epsilon)) + "|")
    for name, found in runs.items():
        ratio = statistics.median(a["seconds"] / b["seconds"] for a, b in zip(found, runs["mohs"]))
        seconds = statistics.median(run["seconds"] for run in found)
        accuracies = [100 * statistics.mean(run["robust"][i] for run in found) for i in range(len(arguments.epsilon))]
        memory = statistics.median(run["memory"] for run in found)
        print(f"| {name} | {seconds:.1f} | {ratio:.1f} | {found[-1]['gradients']:,} | {memory:.0f} | " + " | ".join(f"{a:.1f}" for a in accuracies) + " |")


if __name__ == "__main__":
    main()
