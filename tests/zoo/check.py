#!/usr/bin/env python3
"""Derives a gradient graph of every model of the zoo with `mohs gradient` and compares it with PyTorch's float64 gradients.

    python3 tests/zoo/check.py OUT --mohs target/release/mohs --table docs/zoo.md
    python3 tests/zoo/check.py OUT --only vit --no-time

A model passes where the relative ℓ2 error of `grad` is at most max(1e-3, 10 × the error of PyTorch's own float32 gradient) at batch 1 and 3,
where the loss agrees, everything is finite, and the file has standard operators alone.
The cost ratio is the median run time of the gradient graph over that of the model as exported, interleaved, same batch and threads, ONNX
Runtime's default optimisation. `OUT/results.json` keeps the results, so that a run of a part of the zoo updates the table.
"""

import argparse
import json
import pathlib
import resource
import statistics
import subprocess
import time

import numpy as np
import onnx
import onnxruntime

LIMIT = 600


def session(path, threads, level=onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL):
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = level
    options.log_severity_level = 4
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def relative(found, expected):
    found = np.asarray(found, dtype=np.float64)
    return float(np.linalg.norm((found - expected).ravel()) / max(np.linalg.norm(expected.ravel()), 1e-300))


def foreign(model):
    """Operators outside the standard domain, in any graph of the model."""

    def nodes(graph):
        for node in graph.node:
            yield node
            for attribute in node.attribute:
                for inner in [attribute.g, *attribute.graphs]:
                    yield from nodes(inner)

    found = {f"{node.domain}:{node.op_type}" for node in nodes(model.graph) if node.domain not in ("", "ai.onnx")}
    return sorted(found | {f"function {function.domain}:{function.name}" for function in model.functions})


def last_line(text):
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [number for number, line in enumerate(lines) if "error" in line.lower()]
    chosen = lines[errors[0] :] if errors else lines[-3:]
    return " ".join(chosen)[:600]


def processor_seconds():
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def derive(mohs, model, about, target):
    command = [mohs, "gradient", str(model), "-o", str(target), "--threads", "2"]
    if about["wrt"]:
        command += ["--wrt", about["wrt"]]
    before = processor_seconds()
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT)
    except subprocess.TimeoutExpired:
        return LIMIT, f"deriving took more than {LIMIT} s", ""
    return processor_seconds() - before, None if done.returncode == 0 else last_line(done.stderr), done.stderr


def gradient_name(names):
    (name,) = [name for name in names if name == "grad" or name.startswith("grad.")]
    return name


def compare(runner, arrays, about, result):
    inputs = [port.name for port in runner.get_inputs()]
    outputs = [port.name for port in runner.get_outputs()]
    (data,) = [name for name in inputs if name != "labels"]
    batch_free = not isinstance(runner.get_inputs()[inputs.index(data)].shape[0], int)
    result["freed"] = batch_free
    errors = {}
    for size in (1, 3):
        wanted = {"logits": "logits", "loss": "loss", gradient_name(outputs): "grad"}
        blocks = [slice(0, size)] if size == 1 or batch_free else [slice(row, row + 1) for row in range(size)]
        parts = {name: [] for name in wanted}
        for block in blocks:
            feeds = {data: arrays["x"][block], "labels": arrays["labels"][block]}
            for name, array in zip(wanted, runner.run(list(wanted), feeds)):
                parts[name].append(np.moveaxis(array, about.get("batch_axis", 0), 0) if wanted[name] == "grad" else array)
        for name, key in wanted.items():
            found = np.concatenate(parts[name])
            expected = arrays[key][:size]
            if found.shape != expected.shape:
                raise ValueError(f"{key} has shape {found.shape}, PyTorch's has {expected.shape}")
            if not np.isfinite(found).all():
                raise ValueError(f"{key} is not finite")
            errors[(key, size)] = relative(found, expected)
    return errors


def verdict(errors, about):
    for size in (1, 3):
        limit = max(1e-3, 10 * about["noise"][str(size)])
        if not errors[("grad", size)] <= limit:
            return f"gradient off by {errors[('grad', size)]:.1e} at batch {size}, {limit:.0e} allowed"
        if not errors[("loss", size)] <= 1e-3:
            return f"loss off by {errors[('loss', size)]:.1e} at batch {size}"
    return "pass"


def time_both(forward, gradient, arrays, freed, seconds, threads):
    """Median milliseconds of both, interleaved; of one thread its processor time, which other programs do not disturb."""
    now = time.thread_time if threads == 1 else time.perf_counter
    rows = [row % 3 for row in range(8)] if freed else [0]
    x, labels = arrays["x"][rows], arrays["labels"][rows]
    (data,) = [port.name for port in gradient.get_inputs() if port.name != "labels"]
    runs = [(forward, {forward.get_inputs()[0].name: x}), (gradient, {data: x, "labels": labels})]
    times = [[], []]
    for runner, feeds in runs:
        runner.run(None, feeds)
    end = time.perf_counter() + seconds
    while len(times[0]) < 5 or (time.perf_counter() < end and len(times[0]) < 200):
        for place, (runner, feeds) in zip(times, runs):
            begin = now()
            runner.run(None, feeds)
            place.append(1000 * (now() - begin))
    return [statistics.median(place) for place in times], len(rows)


def check(stem, arguments):
    about = json.loads(stem.with_suffix(".json").read_text())
    arrays = dict(np.load(stem.with_suffix(".npz")))
    model, target = stem.with_suffix(".onnx"), arguments.gradients / f"{stem.name}.onnx"
    result = {"model": about["name"], "family": about["family"], "kind": about["kind"], "exporter": about["exporter"], "opset": about["opset"], "drawn": "margin" in about, "margin": about.get("margin"), "pinned": about["pinned"], "noise": max(about["noise"].values()), "parameters": about["parameters"]}
    seconds, failed, said = derive(arguments.mohs, model, about, target)
    result["derive_seconds"] = seconds
    if failed is not None:
        result["verdict"] = f"refused: {failed}"
        return result
    file = onnx.load(target)
    result["nodes"] = len(file.graph.node)
    result["forward_nodes"] = len(onnx.load(model).graph.node)
    try:
        strange = foreign(file)
        runner = session(target, arguments.threads)
        errors = compare(runner, arrays, about, result)
        result["error_1"], result["error_3"] = errors[("grad", 1)], errors[("grad", 3)]
        result["verdict"] = f"foreign operators {', '.join(strange)}" if strange else verdict(errors, about)
        if arguments.time:
            forward = session(model, arguments.threads)
            # The model as exported may pin its batch where the gradient graph does not.
            free = result["freed"] and not isinstance(forward.get_inputs()[0].shape[0], int)
            (before, after), size = time_both(forward, runner, arrays, free, arguments.time, arguments.threads)
            result |= {"forward_ms": before, "gradient_ms": after, "ratio": after / before, "timed_batch": size}
    except Exception as error:  # noqa: BLE001
        result["verdict"] = f"fails: {type(error).__name__}: {' '.join(str(error).split())[:300]}"
    target.unlink()
    return result


def median_of(results, key):
    values = [result[key] for result in results if key in result]
    return statistics.median(values) if values else float("nan")


def cell(result, key, form):
    return format(result[key], form) if key in result else ""


def ratios(results):
    values = sorted(result["ratio"] for result in results if "ratio" in result)
    if not values:
        return "not timed"
    at = lambda part: values[min(len(values) - 1, int(part * len(values)))]  # noqa: E731
    return f"median {statistics.median(values):.1f}, a tenth of them below {at(0.1):.1f}, a tenth above {at(0.9):.1f} ({len(values)} models)"


def table(results, about):
    passed = [result for result in results if result["verdict"] == "pass"]
    drawn = [result for result in results if result.get("drawn")]
    near = sorted({f"{result['model']} ({result['margin']:.1f})" for result in drawn if result["margin"] is not None and result["margin"] < 4})
    images = [result for result in results if result["kind"] == "image"]
    lines = [
        "# The zoo",
        "",
        "Exported classifiers with random weights, from timm, torchvision, transformers and by hand, differentiated by `mohs gradient` and compared",
        "with PyTorch's own gradients in float64 (`tests/zoo/export.py` makes the files, `tests/zoo/check.py` this table).",
        "",
        f"**{len(passed)} of {len(results)} exports pass**, of {len({result['model'] for result in results})} architectures.",
        "A model passes where the relative ℓ2 error of `grad` is at most max(1e-3, 10 × the error of PyTorch's own float32 gradient) at batch 1 and at",
        "batch 3, where the loss agrees, all is finite, and the file has standard operators alone.",
        "",
        "Gradients are compared where they exist: at a kink, what a program gives is decided by how it rounds. `tests/zoo/kinks.py` draws a sample again until every",
        "unit is at least 4 times PyTorch's float32 error away from its kink, 40 times at most.",
f"The samples of {len(drawn)} exports were drawn so{'; the margin stayed smaller for ' if near else ''}{', '.join(near)}. The others are at their first draw.",
        "",
        f"- Error of the gradient, median: {median_of(passed, 'error_3'):.1e} (PyTorch's float32 gradient: {median_of(passed, 'noise'):.1e}).",
        f"- Run time of the gradient graph over that of the model, image models: {ratios(images)}.",
        f"- The same, all models: {ratios(results)}.",
        f"- Time to derive, median: {median_of(passed, 'derive_seconds'):.1f} s of processor time, at most {max((result.get('derive_seconds', 0) for result in passed), default=0):.1f} s; it includes starting the program, simplifying and",
        "  running the model.",
        "",
        about,
        "",
        "| model | exporter | opset | batch | error at 1 | error at 3 | PyTorch float32 | nodes (model's) | derive s | forward ms | cost ratio | verdict |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for result in sorted(results, key=lambda result: (result["family"], result["model"], result["exporter"])):
        nodes = f"{result['nodes']} ({result['forward_nodes']})" if "nodes" in result else ""
        batch = "pinned" if result["pinned"] else "dynamic"
        if result["pinned"] and result.get("freed"):
            batch = "pinned, freed"
        said = result["verdict"].replace("|", "\\|")
        lines.append(
            f"| {result['model']} | {result['exporter']} | {result['opset']} | {batch} | {cell(result, 'error_1', '.1e')} | {cell(result, 'error_3', '.1e')} | {result['noise']:.1e} | {nodes} "
            f"| {cell(result, 'derive_seconds', '.1f')} | {cell(result, 'forward_ms', '.2f')} | {cell(result, 'ratio', '.1f')} | {said} |"
        )
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=pathlib.Path, help="the folder that export.py filled")
    parser.add_argument("--mohs", default="target/release/mohs")
    parser.add_argument("--only", nargs="*", default=[], help="parts of names")
    parser.add_argument("--new", action="store_true", help="only models without a result")
    parser.add_argument("--failed", action="store_true", help="only models that did not pass")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--time", type=float, default=2.0, help="seconds to time each model for; 0: not at all")
    parser.add_argument("--table", type=pathlib.Path, help="where the table goes")
    parser.add_argument("--note", default="", help="a sentence for the table: the machine, the versions")
    parser.add_argument("--report", action="store_true", help="only write the table from the results that are there")
    arguments = parser.parse_args()
    store = arguments.out / "results.json"
    arguments.gradients = arguments.out / "gradients"
    arguments.gradients.mkdir(exist_ok=True)
    results = json.loads(store.read_text()) if store.exists() else {}
    stems = sorted(path.with_suffix("") for path in arguments.out.glob("*.json") if path != store)
    for stem in [] if arguments.report else stems:
        known = results.get(stem.name)
        if arguments.only and not any(text in stem.name for text in arguments.only):
            continue
        if (arguments.new and known) or (arguments.failed and (not known or known["verdict"] == "pass")):
            continue
        results[stem.name] = result = check(stem, arguments)
        shown = " ".join(f"{key}={result[key]:.3g}" for key in ("error_1", "error_3", "noise", "nodes", "derive_seconds", "ratio") if key in result)
        print(f"{stem.name}: {result['verdict']} [{shown}]", flush=True)
        store.write_text(json.dumps(results, indent=1) + "\n")
    if arguments.table:
        arguments.table.write_text(table(list(results.values()), arguments.note))


if __name__ == "__main__":
    main()
