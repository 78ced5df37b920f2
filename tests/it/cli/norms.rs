//! Several norms in one run: each an evaluation of its own, and one report.

use super::fixtures::ready;
use super::{Sandbox, texts};

const NORMS: &[&str] = &[
    "model.onnx",
    "--data",
    "data.npz",
    "--attack",
    "fgsm,pgd:steps=3",
    "--format",
    "samples,summary,html,junit",
];

fn ends(sandbox: &Sandbox, command: &str, more: &[&str]) -> (i32, String, String) {
    let arguments = [&[command], NORMS, more].concat();
    let (code, stdout, stderr) = texts(&sandbox.mohs(&arguments).output().unwrap());
    (code.unwrap(), stdout, stderr)
}

/// The rows of a table without the columns that a clock has filled.
fn rows(sandbox: &Sandbox, file: &str) -> Vec<String> {
    let text = sandbox.read(file);
    let mut lines = text.lines();
    let seconds = lines
        .next()
        .unwrap()
        .split(',')
        .position(|name| name == "seconds");
    lines
        .map(|line| {
            let cells = line.split(',').enumerate();
            let cells = cells.filter(|(position, _)| Some(*position) != seconds);
            cells.map(|(_, cell)| cell).collect::<Vec<_>>().join(",")
        })
        .collect()
}

#[test]
fn several_norms_in_one_run_give_the_numbers_of_a_run_each() {
    let sandbox = ready();
    let both = ["--norm", "linf,l2", "--epsilon", "linf:0.2,0.3,l2:1/2"];
    let (code, stdout, stderr) = ends(
        &sandbox,
        "evaluate",
        &[&both[..], &["--out", "both"]].concat(),
    );
    assert_eq!(code, 0, "{stderr}");
    assert!(stdout.lines().all(|line| line.chars().count() <= 80));
    assert!(
        stderr.contains("fgsm runs in linf alone: it is not made for l2"),
        "{stderr}"
    );
    ends(
        &sandbox,
        "evaluate",
        &["--epsilon", "0.2,0.3", "--out", "linf"],
    );
    let l2 = ["--norm", "l2", "--epsilon", "0.3,1/2", "--out", "l2"];
    let alone: Vec<&str> = NORMS
        .iter()
        .map(|&word| {
            if word.starts_with("fgsm") {
                "pgd:steps=3"
            } else {
                word
            }
        })
        .collect();
    sandbox.run(&[&["evaluate"], &alone[..], &l2].concat());
    for file in ["samples.csv", "summary.csv"] {
        let each = ["linf", "l2"].map(|folder| rows(&sandbox, &format!("{folder}/{file}")));
        assert_eq!(
            rows(&sandbox, &format!("both/{file}")),
            each.concat(),
            "{file}"
        );
    }
    let page = sandbox.read("both/report.html");
    for curves in ["Accuracy over ε in ℓ∞", "Accuracy over ε in ℓ2"] {
        assert!(page.contains(curves), "{curves}");
    }
    assert!(page.contains("<dt>epsilon</dt><dd>linf:0.2,linf:0.3,l2:0.3,l2:0.5</dd>"));
}

#[test]
fn a_gate_holds_each_norm_against_its_own_threshold() {
    let sandbox = ready();
    let settings = "model = 'model.onnx'\ndata = 'data.npz'\nnorm = ['linf', 'l2']\nattack = 'pgd:steps=3'\n\
                    epsilon = ['linf:0.01', 'linf:0.9', 'l2:0.01']\nout = 'report'\nformat = ['samples', 'junit']\n\
                    [min_robust_accuracy]\n'linf:0.01' = 1.0\n'l2' = 1.0\n";
    std::fs::write(sandbox.path("mohs.toml"), settings).unwrap();
    let (stdout, _) = sandbox.run(&["gate"]);
    for check in [
        "pass  robust accuracy, ℓ∞ ε 0.01",
        "pass  robust accuracy, ℓ2 ε 0.01",
        "The gate passed: 3 checks.",
    ] {
        assert!(stdout.contains(check), "{check}: {stdout}");
    }
    assert!(sandbox.read("report/junit.xml").contains("ℓ2"));
    // The report is a baseline for both norms, and the same model drops nowhere.
    let again = [
        "gate",
        "--baseline",
        "report",
        "--max-drop",
        "0",
        "--out",
        "again",
    ];
    let (stdout, _) = sandbox.run(&again);
    assert_eq!(stdout.matches("pass  drop").count(), 3, "{stdout}");
    // A baseline without one of the norms is refused before anything runs.
    let fewer = [
        "gate",
        "--norm",
        "l2",
        "--epsilon",
        "0.01",
        "--min-robust-accuracy",
        "0",
        "--out",
        "l2",
    ];
    sandbox.run(&fewer);
    let against = [
        "gate",
        "--baseline",
        "l2",
        "--max-drop",
        "0",
        "--out",
        "again",
    ];
    sandbox.refused(&against, &["the baseline l2 has no pgd:steps=3 linf"]);
    let threshold = ["gate", "--min-robust-accuracy", "l1=0.5"];
    sandbox.refused(
        &threshold,
        &[
            "speaks of l1",
            "linf at epsilon 0.01, 0.9 and l2 at epsilon 0.01",
        ],
    );
}
