#!/usr/bin/env bash
# Trains the classifiers of this folder anew from random weights: models/make.sh [MOHS], MOHS the program (`mohs` on the PATH unless given).
# The same build of ONNX Runtime on the same kind of processor gives the same bytes.
set -euo pipefail
mohs=$(realpath "$(command -v "${1:-mohs}")")
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -r "$work"' EXIT
python3 "$here/make.py" --out "$work"
cp "$work/digits-test.npz" "$here"

train() { # NAME EXPORT EPOCHS METHOD…
    local name=$1 untrained=$2 epochs=$3
    shift 3
    "$mohs" train "$work/$untrained" --data "$work/digits-train.npz" --reinitialize 1 --seed 1 --crop 1 --threads 1 \
        --epochs "$epochs" --batch-size 50 --optimizer adamw:learning_rate=0.005 --schedule one-cycle \
        --log "$work/$name.csv" -o "$here/digits-$name.onnx" "$@"
}

train standard untrained-18.onnx 40 --method standard
train adversarial untrained-13.onnx 60 --method pgd:steps=7 --epsilon 0.2
(cd "$here" && sha256sum digits-*)
