#!/usr/bin/env python3
"""Whether FreeLB and FGM on the embedding help accuracy on text: a small classifier of sentences, several seeds of each method.

    python3 benches/compare/text.py --mohs target/release/mohs --work DIR --data DIR_WITH_SENTENCES

`--data` has the files of the UCI data set *Sentiment Labelled Sentences* (doi:10.24432/C57604, CC BY 4.0), `amazon_cells_labelled.txt`,
`imdb_labelled.txt` and `yelp_labelled.txt`: 3,000 sentences, half of them positive.
2,400 are for training and 600 for the test, in one fixed shuffled order; words are lower-case runs of letters, and those seen once are one token.
The network has an embedding, a convolution over three words, the maximum over the sentence, dropout and a linear layer; 32 tokens, padded with 0.
What is reported is the accuracy on the test sentences after the last epoch, not after the best one, over the seeds.

Made for Python 3.11, torch 2.15.0, onnx 1.23.2, numpy 2.4.6; seeded.
"""

import argparse
import collections
import csv
import pathlib
import re
import statistics
import subprocess
import warnings

import numpy as np
import torch
from onnx import load, save
from torch import nn

FILES = ("amazon_cells_labelled.txt", "imdb_labelled.txt", "yelp_labelled.txt")
LENGTH, WIDTH, CHANNELS = 32, 64, 64
SEED = 20240611
TRAINING_SENTENCES = 2400
PADDING, UNKNOWN = 0, 1


class Sentences(nn.Module):
    """Tokens int64 [n, 32] to logits [n, 2]."""

    def __init__(self, words):
        super().__init__()
        self.embedding = nn.Embedding(words, WIDTH)
        self.convolution = nn.Conv1d(WIDTH, CHANNELS, 3, padding=1)
        self.dropout = nn.Dropout(0.5)
        self.head = nn.Linear(CHANNELS, 2)

    def forward(self, tokens):
        real = (tokens != PADDING).unsqueeze(1).float()
        embedded = self.embedding(tokens).transpose(1, 2) * real
        seen = torch.relu(self.convolution(embedded)) * real
        return self.head(self.dropout(seen.amax(2)))


def sentences(folder):
    """Tokens and labels of all sentences, shuffled once, and the number of tokens."""
    texts, labels = [], []
    for name in FILES:
        for line in (folder / name).read_text(encoding="utf-8").split("\n"):
            if line.strip():
                text, label = line.rsplit("\t", 1)
                texts.append(re.findall(r"[a-z']+", text.lower()))
                labels.append(int(label))
    order = np.random.RandomState(SEED).permutation(len(labels))
    counts = collections.Counter(word for place in order[:TRAINING_SENTENCES] for word in texts[place])
    known = {word: token for token, word in enumerate(sorted(word for word, count in counts.items() if count > 1), UNKNOWN + 1)}
    tokens = np.full((len(labels), LENGTH), PADDING, dtype=np.int64)
    for row, place in enumerate(order):
        words = [known.get(word, UNKNOWN) for word in texts[place]][:LENGTH] or [UNKNOWN]
        tokens[row, : len(words)] = words
    return tokens, np.array(labels, dtype=np.int64)[order], len(known) + 2


def export(words, path):
    """Writes the network with its dropout, and gives the name of the embedding's output."""
    torch.manual_seed(SEED)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            Sentences(words).train(), (torch.ones(2, LENGTH, dtype=torch.int64),), path, dynamo=False, opset_version=17,
            training=torch.onnx.TrainingMode.TRAINING, do_constant_folding=False, input_names=["tokens"], output_names=["logits"],
            dynamic_axes={"tokens": {0: "batch"}, "logits": {0: "batch"}},
        )
    model = load(path)
    for node in model.graph.node:
        if node.op_type == "Dropout":
            # Kept in the file, but in the form of inference: nothing is dropped unless it is trained.
            del node.input[2:]
    save(model, path)
    (embedded,) = [node.output[0] for node in model.graph.node if node.op_type == "Gather" and node.input[0] == "embedding.weight"]
    return embedded


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mohs", required=True)
    parser.add_argument("--work", type=pathlib.Path, required=True)
    parser.add_argument("--data", type=pathlib.Path, required=True)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--radii", type=float, nargs="*", default=[0.3, 1.0])
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    tokens, labels, words = sentences(arguments.data)
    files = {}
    for part, chosen in (("train", slice(0, TRAINING_SENTENCES)), ("test", slice(TRAINING_SENTENCES, None))):
        files[part] = arguments.work / f"sentences_{part}.npz"
        np.savez_compressed(files[part], x=tokens[chosen], y=labels[chosen])
    network = arguments.work / "sentences.onnx"
    embedded = export(words, network)
    table = arguments.work / "training.csv"
    runs = [("standard", None)] + [(method, radius) for method in ("fgm", "freelb:steps=3") for radius in arguments.radii]
    print(f"{words} tokens; accuracy in % on {len(labels) - TRAINING_SENTENCES} sentences, {arguments.seeds} seeds")
    for method, radius in runs:
        found = []
        for seed in range(1, arguments.seeds + 1):
            command = [
                arguments.mohs, "train", network, "--data", files["train"], "--validation", files["test"], "--method", method, "--wrt", embedded,
                "--padding", PADDING, "--reinitialize", seed, "--seed", seed, "--threads", 1, "--epochs", arguments.epochs, "--batch-size", 32,
                "--optimizer", "adamw:learning_rate=0.001", "--log", table, "-o", arguments.work / "out.onnx", "-q",
            ]
            command += ["--norm", "l2", "--epsilon", radius] if radius else []
            if seed == 1:
                print("$", *command)
            subprocess.run(list(map(str, command)), check=True)
            with open(table, newline="") as file:
                found.append(100 * float(list(csv.DictReader(file))[-1]["clean_accuracy"]))
        spread = statistics.stdev(found) if len(found) > 1 else 0.0
        each = " ".join(f"{one:.1f}" for one in found)
        print(f"| `{method}` | {radius or '–'} | {statistics.mean(found):.1f} ± {spread:.1f} | {each} |", flush=True)


if __name__ == "__main__":
    main()
