#!/usr/bin/env bash
# Makes the reports in this folder anew: reports/make.sh [MOHS], MOHS the program (`mohs` on the PATH unless given).
set -euo pipefail
mohs=$(command -v "${1:-mohs}")
mohs=$(realpath "$mohs")
# By its bare name, so that no path of this machine gets into the reports.
PATH="$(dirname "$mohs"):$PATH"
cd "$(dirname "$0")/.."

report() { # MODEL NORM ATTACKS RADII
    local out="reports/digits/$1-$2"
    "$(basename "$mohs")" evaluate "models/digits-$1.onnx" --data models/digits-test.npz \
        --norm "$2" --attack "$3" --epsilon "$4" --seed 0 --out "$out" >"$out.txt"
    # A row per sample comes with it, a megabyte for each report: not kept.
    rm "$out/samples.csv"
    mv "$out/summary.csv" "$out.csv"
    # One page shows what a page is.
    if [ "$1-$2" = standard-linf ]; then mv "$out/report.html" "$out.html"; else rm "$out/report.html"; fi
    rm "$out/report.json"
    rmdir "$out"
}

mkdir -p reports/digits
for model in standard adversarial; do
    report "$model" linf fgsm,pgd:restarts=2 8/255,16/255,0.1,0.15,0.2,0.25,0.3
    report "$model" l2 fgm,pgd:restarts=2 0.25,0.5,0.75,1,1.25,1.5
    report "$model" l1 fgm,pgd:restarts=2 0.5,1,2,4,8
done
