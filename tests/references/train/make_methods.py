#!/usr/bin/env python3
"""Makes the models of this folder and, for every method of training, the weights after two steps as PyTorch computes them in float64.

    cargo test --test it trades_starts   (with MOHS_WRITE_STARTS=1: writes `starts.npz`, the points that TRADES starts from)
    python3 tests/references/train/make_methods.py

Each method is written out here by hand, from its paper, on nothing but autograd: no code is shared with mohs.
All samples are one batch, nothing is random, and the optimizer is SGD (rate 0.1, momentum 0.9, weight decay 0.01 on all but biases and normalisation).
Models are attacked in evaluation form and trained in training form.

Made with torch 2.15.0, onnx 1.23.2 and numpy 2.4.6.
"""

import copy
import pathlib
import warnings

import numpy as np
import onnx
import torch
from torch import nn
from torch.nn import functional

HERE = pathlib.Path(__file__).resolve().parent
SAMPLES = 6
CLASSES = 3
PADDING = 0


class Perceptron(nn.Module):
    shape = (5,)

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(5, 8)
        self.second = nn.Linear(8, CLASSES)

    def layer_one(self, x):
        return self.first(x)

    def rest(self, h):
        return self.second(torch.tanh(h))

    def forward(self, x):
        return self.rest(self.layer_one(x))


class Convolutional(nn.Module):
    shape = (1, 6, 6)

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 3, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(3)
        self.conv2 = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.norm2 = nn.BatchNorm2d(4)
        self.linear = nn.Linear(4 * 3 * 3, CLASSES)

    def layer_one(self, x):
        return self.conv1(x)

    def rest(self, h):
        h = torch.relu(self.norm1(h))
        h = torch.relu(self.norm2(self.conv2(h)))
        return self.linear(torch.flatten(h, 1))

    def forward(self, x):
        return self.rest(self.layer_one(x))


class Block(nn.Module):
    """Attention with one head and a feed-forward layer, each behind a normalisation; padded positions are not attended to."""

    def __init__(self, width):
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.norm2 = nn.LayerNorm(width)
        self.wide = nn.Linear(width, 2 * width)
        self.narrow = nn.Linear(2 * width, width)
        self.width = width

    def forward(self, h, real=None):
        n = self.norm1(h)
        scores = self.query(n) @ self.key(n).transpose(1, 2) / self.width**0.5
        if real is not None:
            scores = scores.masked_fill(~real[:, None, :], -1e4)
        h = h + torch.softmax(scores, -1) @ self.value(n)
        return h + self.narrow(functional.gelu(self.wide(self.norm2(h))))


class Transformer(nn.Module):
    """A transformer over sequences of vectors."""

    shape = (4, 3)

    def __init__(self):
        super().__init__()
        self.project = nn.Linear(3, 6)
        self.block = Block(6)
        self.head = nn.Linear(6, CLASSES)

    def layer_one(self, x):
        return self.project(x)

    def rest(self, h):
        return self.head(self.block(h).mean(1))

    def forward(self, x):
        return self.rest(self.layer_one(x))


class Tokens(nn.Module):
    """A transformer over tokens, some of which are padding; what is perturbed are the embeddings."""

    shape = (5,)

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(11, 6)
        self.block = Block(6)
        self.head = nn.Linear(6, CLASSES)

    def forward(self, tokens, perturbation=None):
        real = tokens != PADDING
        h = self.embedding(tokens)
        if perturbation is not None:
            h = h + perturbation
        h = self.block(h, real)
        weights = real.to(h.dtype)[:, :, None]
        return self.head((h * weights).sum(1) / weights.sum(1))


def cross_entropy(logits, y):
    return functional.cross_entropy(logits, y)


def divergence(clean, adversarial):
    """KL(softmax(clean) ‖ softmax(adversarial)), averaged over samples."""
    p, log_p = torch.softmax(clean, 1), torch.log_softmax(clean, 1)
    return (p * (log_p - torch.log_softmax(adversarial, 1))).sum(1).mean()


def gradient(loss, wrt):
    return torch.autograd.grad(loss, wrt)[0]


def variable(x):
    return x.detach().clone().requires_grad_(True)


def ball(x, moved, epsilon):
    return torch.clamp(torch.minimum(torch.maximum(moved, x - epsilon), x + epsilon), 0, 1)


def per_sample_norm(g):
    return g.flatten(1).norm(dim=1).reshape(-1, *[1] * (g.dim() - 1))


class Trainer:
    def __init__(self, model, x, y, start):
        self.model, self.x, self.y, self.starts = model, x, y, iter(start if start is not None else ())
        parameters = list(model.parameters())
        self.matrices = [p for p in parameters if p.dim() > 1]
        vectors = [p for p in parameters if p.dim() <= 1]
        groups = [{"params": self.matrices, "weight_decay": 0.01}, {"params": vectors, "weight_decay": 0.0}]
        self.optimizer = torch.optim.SGD(groups, lr=0.1, momentum=0.9)

    def descend(self, *losses):
        """One step on the sum of losses that are still attached."""
        self.optimizer.zero_grad()
        for loss in losses:
            loss.backward()
        self.optimizer.step()

    def standard(self):
        self.model.train()
        self.descend(cross_entropy(self.model(self.x), self.y))

    def fgsm(self, epsilon=0.1):
        self.model.eval()
        x = variable(self.x)
        g = gradient(cross_entropy(self.model(x), self.y), x)
        adversarial = ball(self.x, self.x + 1.25 * epsilon * g.sign(), epsilon)
        self.model.train()
        self.descend(cross_entropy(self.model(adversarial), self.y))

    def pgd(self, epsilon=0.1, steps=3, size=0.06):
        self.model.eval()
        adversarial = self.x
        for _ in range(steps):
            point = variable(adversarial)
            g = gradient(cross_entropy(self.model(point), self.y), point)
            adversarial = ball(self.x, adversarial + size * g.sign(), epsilon)
        self.model.train()
        self.descend(cross_entropy(self.model(adversarial), self.y))

    def fgm(self, epsilon=0.3):
        self.model.train()
        x = variable(self.x)
        clean = cross_entropy(self.model(x), self.y)
        g = torch.autograd.grad(clean, x, retain_graph=True)[0]
        adversarial = torch.clamp(self.x + epsilon * g / per_sample_norm(g), 0, 1)
        self.descend(clean, cross_entropy(self.model(adversarial), self.y))

    def free(self, epsilon=0.1, replays=2):
        """Two replays are the two weight steps."""
        self.model.train()
        if not hasattr(self, "noise"):
            self.noise = torch.zeros_like(self.x)
        for _ in range(replays):
            noise = variable(self.noise)
            loss = cross_entropy(self.model(torch.clamp(self.x + noise, 0, 1)), self.y)
            self.optimizer.zero_grad()
            loss.backward()
            self.noise = torch.clamp(self.noise + epsilon * noise.grad.sign(), -epsilon, epsilon)
            self.optimizer.step()

    def yopo(self, epsilon=0.1, m=2, n=2, size=0.04):
        self.model.train()
        point = self.x
        self.optimizer.zero_grad()
        for _ in range(m):
            h = self.model.layer_one(point)
            h.retain_grad()
            cross_entropy(self.model.rest(h), self.y).backward()
            p = h.grad.detach()
            for _ in range(n):
                moving = variable(point)
                g = gradient((p * self.model.layer_one(moving)).sum(), moving)
                point = ball(self.x, point + size * g.sign(), epsilon)
            (p * self.model.layer_one(point)).sum().backward()
        self.optimizer.step()

    def freelb(self, epsilon=0.3, steps=3, size=0.2):
        self.model.train()
        adversarial = self.x
        self.optimizer.zero_grad()
        for step in range(steps):
            point = variable(adversarial)
            loss = cross_entropy(self.model(point), self.y) / steps
            loss.backward()
            if step + 1 < steps:
                moved = adversarial + size * point.grad / per_sample_norm(point.grad)
                adversarial = self.in_l2_ball(moved, epsilon)
        self.optimizer.step()

    def in_l2_ball(self, moved, epsilon):
        """The nearest point in the ball and in [0, 1]: x + clip(t·δ) with the t in [0, 1] that makes it ε long (by bisection)."""
        rows = []
        for x, point in zip(self.x, moved):
            delta = point - x

            def within(t):
                return torch.clamp(x + delta * t, 0, 1)

            low, high = 0.0, 1.0
            if (within(1.0) - x).norm() <= epsilon:
                low = 1.0
            else:
                for _ in range(200):
                    middle = (low + high) / 2
                    low, high = (middle, high) if (within(middle) - x).norm() <= epsilon else (low, middle)
            rows.append(within(low))
        return torch.stack(rows)

    def trades(self, epsilon=0.1, steps=3, size=0.04, beta=6.0):
        self.model.eval()
        clean = self.model(self.x).detach()
        adversarial = next(self.starts)
        for _ in range(steps):
            point = variable(adversarial)
            g = gradient(divergence(clean, self.model(point)), point)
            adversarial = ball(self.x, adversarial + size * g.sign(), epsilon)
        self.model.train()
        logits = self.model(self.x)
        self.descend(cross_entropy(logits, self.y) + beta * divergence(logits, self.model(adversarial)))


class EmbeddingTrainer(Trainer):
    """The two methods for text, with the perturbation beside the embeddings and norms over real positions."""

    def real(self):
        return (self.x != PADDING).double()[:, :, None]

    def fgm(self, epsilon=0.3):
        self.model.train()
        delta = torch.zeros(*self.x.shape, 6, dtype=torch.float64, requires_grad=True)
        clean = cross_entropy(self.model(self.x, delta), self.y)
        g = torch.autograd.grad(clean, delta, retain_graph=True)[0] * self.real()
        moved = epsilon * g / per_sample_norm(g)
        self.descend(clean, cross_entropy(self.model(self.x, moved), self.y))

    def freelb(self, epsilon=0.3, steps=3, size=0.2):
        self.model.train()
        delta = torch.zeros(*self.x.shape, 6, dtype=torch.float64)
        self.optimizer.zero_grad()
        for step in range(steps):
            point = variable(delta)
            (cross_entropy(self.model(self.x, point), self.y) / steps).backward()
            if step + 1 < steps:
                g = point.grad * self.real()
                moved = delta + size * g / per_sample_norm(g)
                length = per_sample_norm(moved)
                delta = moved * torch.clamp(epsilon / length, max=1.0)
        self.optimizer.step()


METHODS = ["standard", "fgsm", "fgm", "pgd", "free", "yopo", "freelb", "trades"]
MODELS = {"mlp": Perceptron, "cnn": Convolutional, "transformer": Transformer, "tokens": Tokens}


def randomized(model):
    """First weights that are no special case: every normalisation scales, shifts and has statistics of its own."""
    for module in model.modules():
        if isinstance(module, (nn.BatchNorm2d, nn.LayerNorm)):
            nn.init.uniform_(module.weight, 0.7, 1.3)
            nn.init.uniform_(module.bias, -0.2, 0.2)
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.2, 0.2)
            nn.init.uniform_(module.running_var, 0.7, 1.3)
    return model


def export(model, name, example):
    path = HERE / f"{name}.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model.eval(),
            (example,),
            path,
            dynamo=False,
            opset_version=17,
            training=torch.onnx.TrainingMode.PRESERVE,
            do_constant_folding=False,
            input_names=["input"],
            output_names=["logits"],
            dynamic_axes={"input": {0: "batch"}, "logits": {0: "batch"}},
        )
    file = onnx.load(path)
    for node in file.graph.node:
        node.doc_string = ""
        # The tensor that is perturbed gets a name.
        if name == "tokens" and node.op_type == "Gather" and node.input[0] == "embedding.weight":
            old = node.output[0]
            for other in file.graph.node:
                other.input[:] = ["embeddings" if value == old else value for value in other.input]
            node.output[0] = "embeddings"
    onnx.save(file, path)
    return file


def names_of(file, model):
    """The name in the file of each tensor of the model: transposed matrices have others than PyTorch gives."""
    stored = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in file.graph.initializer}
    names = {}
    for key, value in model.state_dict().items():
        if key.endswith("num_batches_tracked"):
            continue
        value = value.numpy().astype(np.float32)
        if key in stored:
            names[key] = (key, False)
            continue
        transposed = [name for name, other in stored.items() if other.shape == value.T.shape and np.array_equal(other, value.T)]
        (name,) = transposed
        names[key] = (name, True)
    return names


def main():
    torch.manual_seed(20240611)
    torch.set_default_dtype(torch.float32)
    starts = dict(np.load(HERE / "starts.npz")) if (HERE / "starts.npz").exists() else {}
    results = {}
    for name, kind in MODELS.items():
        model = randomized(kind())
        if name == "tokens":
            x = torch.randint(1, 11, (SAMPLES, *kind.shape))
            for row in range(SAMPLES):
                x[row, kind.shape[0] - row % 3 :] = PADDING
        else:
            x = torch.rand(SAMPLES, *kind.shape)
        y = torch.arange(SAMPLES) % CLASSES
        file = export(model, name, x[:2])
        names = names_of(file, model)
        np.savez(HERE / f"{name}-data.npz", x=x.numpy(), y=y.numpy())
        for method in METHODS:
            if name == "tokens" and method not in ("standard", "fgm", "freelb"):
                continue
            if method == "trades" and name not in starts:
                print(f"no start for trades on {name} yet")
                continue
            double = copy.deepcopy(model).double()
            points = x if name == "tokens" else x.double()
            trainer = EmbeddingTrainer if name == "tokens" else Trainer
            start = torch.tensor(starts[name]).double() if name in starts else None
            if start is not None:
                start = start.reshape(2, *points.shape)
            trainer = trainer(double, points, y, start)
            # Free makes two weight steps of one batch.
            for _ in range(1 if method == "free" else 2):
                getattr(trainer, method)()
            for key, value in double.state_dict().items():
                if key in names:
                    stored, transposed = names[key]
                    value = value.numpy().T if transposed else value.numpy()
                    results[f"{name}.{method}.{stored}"] = np.ascontiguousarray(value)
        if name == "mlp":
            # The perturbation goes on from batch to batch: one sample, four epochs in two replays each.
            double = copy.deepcopy(model).double()
            trainer = Trainer(double, x[:1].double(), y[:1], None)
            for _ in range(2):
                trainer.free()
            for key, (stored, transposed) in names.items():
                value = double.state_dict()[key].numpy()
                results[f"mlp.carried.{stored}"] = np.ascontiguousarray(value.T if transposed else value)
    np.savez(HERE / "methods.npz", **results)


if __name__ == "__main__":
    main()
