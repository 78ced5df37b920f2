#!/usr/bin/env python3
"""Makes `optimizers.npz`: a weight and a bias under fixed gradients, step by step, as PyTorch's optimizers change them in float64.

    python3 tests/references/train/make_optimizers.py

Made with torch 2.15.0 and numpy 2.4.6.
Weight decay spares the bias, in a parameter group of its own, but for the case that says otherwise.
"""

import pathlib

import numpy as np
import torch

STEPS = 6
RATES = [0.1, 0.1, 0.05, 0.05, 0.2, 0.01]

CASES = {
    "sgd": (torch.optim.SGD, {}, None),
    "sgd_decay": (torch.optim.SGD, {"weight_decay": 0.01}, None),
    "sgd_momentum": (torch.optim.SGD, {"momentum": 0.9, "weight_decay": 0.01}, None),
    "sgd_nesterov": (torch.optim.SGD, {"momentum": 0.9, "nesterov": True, "weight_decay": 0.01}, None),
    "sgd_decay_all": (torch.optim.SGD, {"momentum": 0.5, "weight_decay": 0.01, "decay_all": True}, None),
    "sgd_clip": (torch.optim.SGD, {"momentum": 0.9}, 1.5),
    "adam": (torch.optim.Adam, {}, None),
    "adam_decay": (torch.optim.Adam, {"betas": (0.8, 0.99), "weight_decay": 0.01}, None),
    "adamw": (torch.optim.AdamW, {"weight_decay": 0.05}, None),
    "adamw_clip": (torch.optim.AdamW, {"weight_decay": 0.05, "betas": (0.5, 0.9)}, 0.7),
}


def main():
    generator = np.random.default_rng(20240611)
    weight, bias = generator.normal(size=(3, 4)), generator.normal(size=4)
    gradients = {"weight": generator.normal(size=(STEPS, 3, 4)), "bias": generator.normal(size=(STEPS, 4))}
    arrays = {f"gradients.{name}": value for name, value in gradients.items()}
    arrays["rates"] = np.array(RATES)
    for case, (kind, options, clip) in CASES.items():
        options = dict(options)
        decay_all = options.pop("decay_all", False)
        parameters = {"weight": torch.nn.Parameter(torch.tensor(weight)), "bias": torch.nn.Parameter(torch.tensor(bias))}
        spared = {} if decay_all else {"weight_decay": 0.0}
        groups = [{"params": [parameters["weight"]]}, {"params": [parameters["bias"]], **spared}]
        optimizer = kind(groups, lr=1.0, **options)
        history = {name: [value.detach().numpy().copy()] for name, value in parameters.items()}
        for step in range(STEPS):
            for group in optimizer.param_groups:
                group["lr"] = RATES[step]
            for name, value in parameters.items():
                value.grad = torch.tensor(gradients[name][step])
            if clip is not None:
                torch.nn.utils.clip_grad_norm_(parameters.values(), clip)
            optimizer.step()
            for name, value in parameters.items():
                history[name].append(value.detach().numpy().copy())
        for name, values in history.items():
            arrays[f"{case}.{name}"] = np.stack(values)
    np.savez(pathlib.Path(__file__).with_name("optimizers.npz"), **arrays)


if __name__ == "__main__":
    main()
