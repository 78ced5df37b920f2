#!/usr/bin/env python3
"""Makes the references for gradients by parameters: for each model NAME.onnx and NAME.npz.

    python3 tests/references/parameters/make.py

The weights are random and float32; losses, gradients and running statistics are PyTorch's, computed in float64 with these same weights.
Which initializer of the file holds which parameter is found by comparing numbers: exporters transpose weights, and reorder the gates of recurrent
layers.
The arrays are told in README.md beside this script.

Made with Python 3.11, torch 2.15.0, onnx 1.23.2, onnxscript 0.7.2, numpy 2.4.6; one thread, seeded by the model's name.
"""

import contextlib
import io
import pathlib
import sys
import warnings
import zlib

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import nn
from torch.nn import functional

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from case import randomise  # noqa: E402
from make import without_traces  # noqa: E402

SAMPLES = 6
CLASSES = 5


class Convolutional(nn.Module):
    """Strided, padded, dilated and grouped convolutions with batch normalisation, a residual block and a bias."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(2, 8, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 8, 3, padding=1, groups=4)
        self.bn2 = nn.BatchNorm2d(8, momentum=0.3)
        self.conv3 = nn.Conv2d(8, 12, 4, stride=2, padding=1)
        self.conv4 = nn.Conv2d(12, 6, 3, padding=2, dilation=2)
        self.bn3 = nn.BatchNorm1d(6)
        self.fc = nn.Linear(6, CLASSES)

    def forward(self, x):
        x = functional.relu(self.bn1(self.conv1(x)))
        x = functional.relu(x + self.bn2(self.conv2(x)))
        x = functional.relu(self.conv3(x))
        x = self.conv4(x).mean((2, 3))
        return self.fc(self.bn3(x))


class Perceptron(nn.Module):
    """Two hidden layers; one matrix is used twice."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(7, 9)
        self.twice = nn.Linear(9, 9)
        self.slope = nn.PReLU(9)
        self.last = nn.Linear(9, CLASSES)

    def forward(self, x):
        x = torch.tanh(self.first(x))
        x = self.slope(self.twice(x))
        return self.last(torch.tanh(self.twice(x)))


class Transformer(nn.Module):
    """Token and position embeddings, one pre-norm block, the mean over tokens, and dropout that the file keeps or not."""

    def __init__(self, tokens=11, length=6, width=8, heads=2):
        super().__init__()
        self.heads = heads
        self.embedding = nn.Embedding(tokens, width)
        self.position = nn.Parameter(0.3 * torch.randn(1, length, width))
        self.norm1 = nn.LayerNorm(width)
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.up = nn.Linear(width, 2 * width)
        self.down = nn.Linear(2 * width, width)
        self.head = nn.Linear(width, CLASSES)

    def forward(self, ids):
        x = self.embedding(ids) + self.position
        y = self.norm1(x)
        split = lambda value: value.view(value.shape[0], value.shape[1], self.heads, -1).transpose(1, 2)
        query, key, value = split(self.query(y)), split(self.key(y)), split(self.value(y))
        scores = torch.softmax(query @ key.transpose(2, 3) / query.shape[-1] ** 0.5, -1)
        mixed = (scores @ value).transpose(1, 2).flatten(2)
        x = x + mixed
        x = x + self.down(functional.gelu(self.up(self.norm2(x))))
        return self.head(x.mean(1))


class Recurrent(nn.Module):
    """An LSTM in both directions, then a GRU, whose last state is classified."""

    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(4, 5, batch_first=True, bidirectional=True)
        self.gru = nn.GRU(10, 6, batch_first=True)
        self.head = nn.Linear(6, CLASSES)

    def forward(self, x):
        x, _ = self.lstm(x)
        x, _ = self.gru(x)
        return self.head(x[:, -1])


class Dropping(nn.Module):
    """Dropout that the file keeps, in two places."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(7, 9)
        self.drop1 = nn.Dropout(0.25)
        self.second = nn.Linear(9, 9)
        self.drop2 = nn.Dropout(0.5)
        self.last = nn.Linear(9, CLASSES)

    def forward(self, x):
        x = self.drop1(torch.relu(self.first(x)))
        return self.last(self.drop2(torch.relu(self.second(x))))


class Masked(nn.Module):
    """A dropout whose mask is given."""

    def __init__(self, ratio, mask):
        super().__init__()
        self.ratio, self.keep = ratio, mask

    def forward(self, x):
        return x * self.keep / (1 - self.ratio)


CASES = {
    "perceptron-legacy13": (Perceptron, (7,), "legacy", 13),
    "perceptron-dynamo18": (Perceptron, (7,), "dynamo", 18),
    "convolutional-legacy9": (Convolutional, (2, 9, 9), "legacy", 9),
    "convolutional-legacy17": (Convolutional, (2, 9, 9), "legacy", 17),
    "transformer-legacy17": (Transformer, (6,), "legacy", 17),
    "transformer-legacy13": (Transformer, (6,), "legacy", 13),
    "transformer-dynamo18": (Transformer, (6,), "dynamo", 18),
    "recurrent-legacy13": (Recurrent, (8, 4), "legacy", 13),
    "recurrent-legacy14-folded": (Recurrent, (8, 4), "legacy", 14),
    "convolutional-legacy13-fresh": (Convolutional, (2, 9, 9), "legacy", 13),
    "dropping-legacy13": (Dropping, (7,), "legacy", 13),
}


def spread(module, generator):
    """Gives layer normalisations weights as training would."""
    for layer in module.modules():
        if isinstance(layer, nn.LayerNorm):
            layer.weight.copy_(0.6 + 0.8 * torch.rand(layer.weight.shape, generator=generator))
            layer.bias.copy_(0.3 * torch.randn(layer.bias.shape, generator=generator))


def export(module, x, path, exporter, opset, keep_dropout, folded):
    """Writes the module, the batch dynamic; nothing is folded unless asked for."""
    options = {"input_names": ["input"], "output_names": ["logits"], "opset_version": opset}
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        if exporter == "dynamo":
            shapes = ({0: torch.export.Dim("batch")},)
            torch.onnx.export(module, (x,), path, dynamo=True, dynamic_shapes=shapes, external_data=False, verbose=False, **options)
        else:
            axes = {"input": {0: "batch"}, "logits": {0: "batch"}}
            mode = torch.onnx.TrainingMode.TRAINING if keep_dropout else torch.onnx.TrainingMode.PRESERVE
            torch.onnx.export(module, (x,), path, dynamo=False, dynamic_axes=axes, training=mode, do_constant_folding=folded, **options)
    model = without_traces(path)
    if keep_dropout:
        # As a file for inference has it: the nodes are there, and do nothing.
        off = numpy_helper.from_array(np.array(False), "off")
        model.graph.initializer.append(off)
        for node in model.graph.node:
            if node.op_type == "Dropout":
                node.input[2] = "off"
        onnx.save(model, path)
    return model


def gates(module, prefix, values):
    """The weights of a recurrent layer as ONNX holds them, made from PyTorch's `values` by name: gates i, o, f, c (LSTM) and z, r, h (GRU)."""
    order = {nn.LSTM: [0, 3, 1, 2], nn.GRU: [1, 0, 2]}[type(module)]
    ends = ["_l0", "_l0_reverse"] if module.bidirectional else ["_l0"]

    def sort(value):
        return torch.cat([value.chunk(len(order))[gate] for gate in order])

    get = lambda kind: [sort(values[f"{prefix}.{kind}{end}"]) for end in ends]
    yield torch.stack(get("weight_ih"))
    yield torch.stack(get("weight_hh"))
    yield torch.stack([torch.cat(pair) for pair in zip(get("bias_ih"), get("bias_hh"))])


def forms(module, values):
    """Every form in which a file may hold a parameter, made from `values` by name (the parameters, or their gradients)."""
    for name, value in values.items():
        yield name, value
        if value.ndim == 2:
            yield name, value.T
        if value.ndim == 1:
            yield name, value[None, :]
    for name, layer in module.named_modules():
        if isinstance(layer, (nn.LSTM, nn.GRU)):
            for value in gates(layer, name, values):
                yield name, value


def tensors(model):
    """The float tensors of a file by name, those in `Constant` nodes too."""
    found = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            found[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
        if node.op_type == "Identity" and node.input[0] in found:
            found[node.output[0]] = found[node.input[0]]
    return {name: value for name, value in found.items() if value.dtype == np.float32}


def gradients(module, model, x, labels, arrays, prefix):
    """Mean cross-entropy and its gradients, by the names of the file."""
    module.zero_grad()
    point = x.double().requires_grad_() if x.dtype.is_floating_point else x
    losses = functional.cross_entropy(module(point), labels, reduction="none")
    losses.mean().backward()
    if x.dtype.is_floating_point:
        arrays[f"{prefix}grad"] = SAMPLES * point.grad.numpy()
    return keep(module, model, losses, arrays, prefix)


def keep(module, model, losses, arrays, prefix):
    """Keeps losses and the gradients that the parameters have, by the names of the file."""
    parameters = {name: parameter for name, parameter in module.named_parameters() if parameter.grad is not None}
    arrays[f"{prefix}loss"] = losses.detach().numpy()
    values = {name: parameter.detach() for name, parameter in parameters.items()}
    slopes = {name: parameter.grad for name, parameter in parameters.items()}
    stored = tensors(model)
    found = set()
    for (own, value), (_, slope) in zip(forms(module, values), forms(module, slopes)):
        for name, tensor in stored.items():
            # A parameter that has its own name in the file is not looked for under another.
            same = name == own or (own not in stored and name not in parameters)
            if same and tensor.shape == tuple(value.shape) and np.array_equal(tensor, value.float().numpy()):
                arrays[f"{prefix}grad.{name}"] = slope.numpy()
                found.add(name)
    return found


def trades(module, model, x, labels, generator, arrays):
    """Cross-entropy plus 6 KL(clean ‖ adversarial), and the gradient of the KL alone by the adversarial input."""
    adversarial = (x + 0.3 * torch.randn(x.shape, generator=generator)).double().requires_grad_()
    clean, moved = module(x.double()), module(adversarial)
    apart = functional.kl_div(functional.log_softmax(moved, 1), functional.softmax(clean, 1), reduction="none").sum(1)
    losses = functional.cross_entropy(clean, labels, reduction="none") + 6 * apart
    module.zero_grad()
    losses.mean().backward(retain_graph=True)
    keep(module, model, losses, arrays, "trades.")
    arrays["adversarial"] = adversarial.detach().float().numpy()
    arrays["divergence.loss"] = apart.detach().numpy()
    arrays["divergence.grad"] = torch.autograd.grad(apart.sum(), adversarial)[0].numpy()
    arrays["reference"] = clean.detach().float().numpy()


def perturbed(module, model, ids, labels, generator, arrays):
    """A perturbation of what the token embedding gives: its gradient, and that of the parameters."""
    perturbation = torch.randn(*ids.shape, 8, generator=generator).double().requires_grad_()
    hook = module.embedding.register_forward_hook(lambda _, __, output: output + perturbation)
    losses = functional.cross_entropy(module(ids), labels, reduction="none")
    module.zero_grad()
    losses.mean().backward()
    hook.remove()
    keep(module, model, losses, arrays, "perturbed.")
    arrays["perturbed.grad"] = SAMPLES * perturbation.grad.numpy()
    arrays["perturbation"] = perturbation.detach().float().numpy()


def pairing(module, model, x, generator, arrays):
    """The inner product of what the first convolution gives with a given cotangent."""
    point = x.double().requires_grad_()
    result = module.conv1(point)
    cotangent = torch.randn(result.shape, generator=generator).double()
    losses = (cotangent * result).sum((1, 2, 3))
    module.zero_grad()
    losses.mean().backward()
    keep(module, model, losses, arrays, "pairing.")
    arrays["pairing.grad"] = SAMPLES * point.grad.numpy()
    arrays["cotangent"] = cotangent.float().numpy()


def main():
    torch.set_num_threads(1)
    for name, (build, shape, exporter, opset) in CASES.items():
        seed = zlib.crc32(build.__name__.encode())
        torch.manual_seed(seed)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            module = build()
            if not name.endswith("-fresh"):
                randomise(module, generator)
                spread(module, generator)
        if build is Transformer:
            x = torch.randint(0, 11, (SAMPLES, *shape), generator=generator)
        else:
            x = torch.randn(SAMPLES, *shape, generator=generator)
        labels = torch.randint(0, CLASSES, (SAMPLES,), generator=generator)
        path = HERE / f"{name}.onnx"
        module.eval()
        model = export(module, x, path, exporter, opset, build is Dropping, name.endswith("-folded"))
        arrays = {"x": x.numpy(), "labels": labels.numpy()}
        module = module.double().eval()
        found = gradients(module, model, x, labels, arrays, "")
        if name == "perceptron-legacy13":
            trades(module, model, x, labels, generator, arrays)
        if name == "transformer-legacy17":
            perturbed(module, model, x, labels, generator, arrays)
        if name == "convolutional-legacy17":
            pairing(module, model, x, generator, arrays)
        if build is Convolutional:
            module.train()
            gradients(module, model, x, labels, arrays, "train.")
            after = module.state_dict()
            for key in after:
                if "running" in key:
                    arrays[f"next.{key}"] = after[key].numpy()
        if build is Dropping:
            for number, ratio in [(1, 0.25), (2, 0.5)]:
                mask = torch.rand(SAMPLES, 9, generator=generator) > ratio
                setattr(module, f"drop{number}", Masked(ratio, mask))
                arrays[f"mask.{number}"] = mask.numpy()
            gradients(module, model, x, labels, arrays, "masked.")
        stored = tensors(model)
        left = [key for key in stored if key not in found and stored[key].size > 1 and "running" not in key]
        assert not left, (name, left)
        np.savez_compressed(path.with_suffix(".npz"), **arrays)
        print(name, sorted(found))


if __name__ == "__main__":
    main()
