#!/usr/bin/env python3
"""Compares `mohs evaluate --attack autoattack` with verdicts of the authors' AutoAttack, sample by sample.

    python3 benches/compare/autoattack.py --mohs target/release/mohs --nets NETS --data mnist_test.npz --reference autoattack.csv --summary autoattack_summary.csv

`--reference` has one row per network, norm, ε and sample (`network,norm,epsilon,index,clean_correct,robust`), `--summary` one per network, norm and ε with
the reference's accuracy and seconds. For each of these the table shows the robust accuracy of both, the share of samples with the same verdict, the samples
that only one of them breaks, and the wall-clock and CPU seconds of mohs as shares of the reference's wall-clock seconds.
"""

import argparse
import csv
import os
import pathlib
import resource
import subprocess
import sys
import tempfile
import time

NORMALISED = ("DiffAI", "maxpool")
"""Networks that take (x - 0.1307) / 0.3081."""

MOST_ABOVE = 0.003
LEAST_EQUAL = 0.985
MOST_SECONDS = 0.5


def read(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def run(arguments, network, norm, epsilon, folder):
    """Whether each sample is robust, with wall-clock and CPU seconds."""
    model = pathlib.Path(arguments.nets) / f"{network}.onnx"
    command = [
        arguments.mohs, "--quiet", "evaluate", model, "--data", arguments.data, "--limit", str(arguments.samples), "--attack", arguments.attack,
        "--norm", norm, "--epsilon", epsilon, "--seed", str(arguments.seed), "--threads", str(arguments.threads), "--out", folder,
        "--format", "samples,summary,json",
    ]
    if any(mark in network for mark in NORMALISED):
        command += ["--mean", "0.1307", "--std", "0.3081"]
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    rows = read(pathlib.Path(folder) / "samples.csv")
    return {int(row["index"]): row for row in rows}, wall, cpu


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mohs", required=True, help="the mohs binary")
    parser.add_argument("--nets", required=True, help="the folder of the networks")
    parser.add_argument("--data", required=True, help="the samples, an .npz file")
    parser.add_argument("--reference", required=True, help="the reference's verdicts")
    parser.add_argument("--summary", required=True, help="the reference's accuracies and times")
    parser.add_argument("--attack", default="autoattack")
    parser.add_argument("--samples", type=int, default=1000, help="only so many, from the first; times are compared with all")
    parser.add_argument("--only", help="only rows whose network and norm contain this, as in PGDK,l2")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--keep", help="a folder for the reports")
    arguments = parser.parse_args()
    verdicts = {}
    for row in read(arguments.reference):
        key = row["network"], row["norm"], row["epsilon"]
        verdicts.setdefault(key, {})[int(row["index"])] = row["robust"] == "1"
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores, {arguments.attack}, the first {arguments.samples} samples")
    print("| network | norm | ε | robust %, mohs | reference | equal % | mohs alone breaks | reference alone | wall s | CPU s | reference s | wall share | bar |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    met = True
    for row in read(arguments.summary):
        key = row["network"], row["norm"], row["epsilon"]
        if arguments.only and not all(mark in "".join(key) for mark in arguments.only.split(",")):
            continue
        if arguments.keep:
            pathlib.Path(arguments.keep).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as name:
            folder = pathlib.Path(arguments.keep) / "-".join(key) if arguments.keep else pathlib.Path(name) / "report"
            outcomes, wall, cpu = run(arguments, *key, folder)
        ours = {index: outcome["robust"] == "true" for index, outcome in outcomes.items()}
        theirs = {index: robust for index, robust in verdicts[key].items() if index in ours}
        if theirs.keys() != ours.keys():
            sys.exit(f"{key}: the reference has {len(theirs)} of {len(ours)} samples")
        alone = [index for index in ours if theirs[index] and not ours[index]]
        missed = [index for index in ours if ours[index] and not theirs[index]]
        count = len(ours)
        robust, reference = sum(ours.values()) / count, sum(theirs.values()) / count
        equal = 1 - (len(alone) + len(missed)) / count
        seconds = float(row["seconds"])
        whole = count == int(row["samples"])
        passed = robust <= reference + MOST_ABOVE + 1e-9 and equal >= LEAST_EQUAL and (not whole or wall < MOST_SECONDS * seconds)
        met &= passed
        print(
            f"| {key[0]} | {key[1]} | {key[2]} | {100 * robust:.1f} | {100 * reference:.1f} | {100 * equal:.1f} | {len(alone)} | {len(missed)} | "
            f"{wall:.1f} | {cpu:.1f} | {seconds:.0f} | {wall / seconds:.2f} | {'met' if passed else 'MISSED'} |",
            flush=True,
        )
        if missed:
            print(f"  broken by the reference alone: {missed}", file=sys.stderr)
    print(f"load at the end {os.getloadavg()[0]:.1f}")
    sys.exit(0 if met else 1)


if __name__ == "__main__":
    main()
