//! The report as a whole: against its schema, and in a real browser.

use crate::cli::Sandbox;
use crate::sources::root;
use mohs::report::SCHEMA_VERSION;
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The demo's plain classifier under two attacks, in every form, held against one threshold that it misses.
fn gated() -> Sandbox {
    let sandbox = Sandbox::new();
    let model = root().join("models/digits-standard.onnx");
    let data = root().join("models/digits-test.npz");
    let output = sandbox
        .mohs(&["gate", "--no-config", "--attack", "fgsm,pgd:steps=5"])
        .arg(model)
        .arg("--data")
        .arg(data)
        .args(["--epsilon", "8/255,0.2", "--limit", "60"])
        .args(["--min-robust-accuracy", "0.9", "--out", "report"])
        .args(["--format", "samples,summary,json,html,markdown,junit,sarif"])
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{errors}");
    sandbox
}

#[test]
fn a_report_is_what_its_schema_says_and_every_form_is_there() {
    let sandbox = gated();
    let schema = std::fs::read_to_string(root().join("docs/report.schema.json")).unwrap();
    let schema: Value = serde_json::from_str(&schema).unwrap();
    let mut report: Value = serde_json::from_str(&sandbox.read("report/report.json")).unwrap();
    let mut faults = Vec::new();
    validate(&schema, &schema, &report, "report", &mut faults);
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    let version = &schema["properties"]["schema_version"]["const"];
    assert_eq!(*version, SCHEMA_VERSION);

    // A report that is none is told.
    report["samples"] = Value::from("many");
    report["provenance"]["models"][0]["sha256"] = Value::from("short");
    report["verdict"]["passed"] = Value::Null;
    validate(&schema, &schema, &report, "report", &mut faults);
    assert_eq!(faults.len(), 3, "{faults:?}");

    for (file, beginning) in [
        ("samples.csv", "index,label"),
        ("summary.csv", "model,attack"),
        ("report.html", "<!doctype html>"),
        ("report.md", "## ❌ The gate failed"),
        ("junit.xml", "<?xml"),
        ("report.sarif", "{"),
    ] {
        let text = sandbox.read(&format!("report/{file}"));
        assert!(text.starts_with(beginning), "{file}: {text}");
    }
    let page = sandbox.read("report/report.html");
    assert_eq!(page.matches("<figure class=\"card\">").count(), 24);
    assert!(page.len() < 1_000_000, "{}", page.len());
}

/// As much of JSON Schema (2020-12) as the document uses; a keyword that is not known here is a fault.
fn validate(root: &Value, schema: &Value, value: &Value, place: &str, faults: &mut Vec<String>) {
    for (keyword, rule) in schema.as_object().unwrap() {
        let holds = match keyword.as_str() {
            "$schema" | "$id" | "$defs" | "title" | "description" => true,
            "$ref" => {
                let pointer = rule.as_str().unwrap().trim_start_matches('#');
                validate(root, root.pointer(pointer).unwrap(), value, place, faults);
                true
            }
            "const" => rule == value,
            "enum" => rule.as_array().unwrap().contains(value),
            "type" => match rule {
                Value::Array(kinds) => kinds.iter().any(|kind| is(kind, value)),
                kind => is(kind, value),
            },
            "minimum" => value.as_f64().is_none_or(|n| n >= rule.as_f64().unwrap()),
            "maximum" => value.as_f64().is_none_or(|n| n <= rule.as_f64().unwrap()),
            "minLength" => {
                let length = value.as_str().map(|text| text.chars().count() as u64);
                length.is_none_or(|length| length >= rule.as_u64().unwrap())
            }
            "items" => {
                for (position, item) in value.as_array().into_iter().flatten().enumerate() {
                    validate(root, rule, item, &format!("{place}[{position}]"), faults);
                }
                true
            }
            "required" => {
                let names = rule.as_array().unwrap().iter();
                let missing = |name: &&Value| value.get(name.as_str().unwrap()).is_none();
                !value.is_object() || names.filter(missing).count() == 0
            }
            "properties" => {
                for (name, member) in value.as_object().into_iter().flatten() {
                    if let Some(rule) = rule.get(name) {
                        validate(root, rule, member, &format!("{place}.{name}"), faults);
                    }
                }
                true
            }
            "additionalProperties" => {
                let known = &schema["properties"];
                let members = value.as_object().into_iter().flatten();
                for (name, member) in members.filter(|(name, _)| known.get(name).is_none()) {
                    let place = format!("{place}.{name}");
                    match rule {
                        Value::Bool(true) => {}
                        Value::Bool(false) => faults.push(format!("{place}: not in the schema")),
                        rule => validate(root, rule, member, &place, faults),
                    }
                }
                true
            }
            other => panic!("the schema uses `{other}`, which this test does not know"),
        };
        if !holds {
            faults.push(format!("{place}: {value} breaks `{keyword}`: {rule}"));
        }
    }
}

fn is(kind: &Value, value: &Value) -> bool {
    match kind.as_str().unwrap() {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        "integer" => value.is_u64() || value.is_i64(),
        "number" => value.is_number(),
        other => panic!("no type `{other}`"),
    }
}

/// Chromium, where the machine has it.
fn chromium() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    ["chromium", "chromium-browser", "google-chrome"]
        .iter()
        .flat_map(|name| std::env::split_paths(&path).map(move |folder| folder.join(name)))
        .find(|program| program.is_file())
}

/// What the browser's console says of a page; the picture of the page goes into `picture`.
fn look_at(chromium: &Path, page: &Path, width: u32, dark: bool, picture: &Path) -> String {
    let profile = tempfile::tempdir().unwrap();
    let scheme = if dark { 0 } else { 1 };
    let output = Command::new(chromium)
        .args(["--headless", "--no-sandbox", "--disable-gpu"])
        .args([
            "--hide-scrollbars",
            "--enable-logging=stderr",
            "--no-first-run",
        ])
        .arg("--host-resolver-rules=MAP * ~NOTFOUND")
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .arg(format!("--blink-settings=preferredColorScheme={scheme}"))
        .arg(format!("--window-size={width},1400"))
        .arg(format!("--screenshot={}", picture.display()))
        .arg(format!("file://{}", page.display()))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(picture.is_file(), "no picture: {said}");
    let console = said.lines().filter(|line| line.contains("CONSOLE"));
    console.collect::<Vec<_>>().join("\n")
}

/// The colours of a picture.
fn colours(picture: &Path) -> BTreeSet<[u8; 3]> {
    let file = std::io::BufReader::new(std::fs::File::open(picture).unwrap());
    let mut reader = png::Decoder::new(file).read_info().unwrap();
    let mut bytes = vec![0; reader.output_buffer_size().unwrap()];
    let frame = reader.next_frame(&mut bytes).unwrap();
    let pixels = bytes.chunks_exact(frame.color_type.samples());
    pixels.map(|pixel| [pixel[0], pixel[1], pixel[2]]).collect()
}

#[test]
#[expect(clippy::print_stderr, reason = "says that nothing was looked at")]
fn a_browser_shows_the_page_and_has_nothing_to_say_against_it() {
    let Some(chromium) = chromium() else {
        eprintln!("there is no Chromium on this machine: report.html was not looked at");
        return;
    };
    let sandbox = gated();
    let page = sandbox.path("report/report.html");
    let pictures = [
        ("light.png", 1100, false),
        ("dark.png", 1100, true),
        ("narrow.png", 500, false),
    ];
    for (name, width, dark) in pictures {
        let picture = sandbox.path(name);
        let console = look_at(&chromium, &page, width, dark, &picture);
        assert_eq!(console, "", "{name}");
        assert!(colours(&picture).len() > 50, "{name}: an empty page");
    }
    let paper = [0xfb, 0xfa, 0xf8];
    assert!(colours(&sandbox.path("light.png")).contains(&paper));
    assert!(!colours(&sandbox.path("dark.png")).contains(&paper));

    // What the page's own policy forbids is said: silence means something.
    let broken = sandbox.path("broken.html");
    let script = "<script>document.title = 'x'</script></body>";
    let text = sandbox.read("report/report.html");
    std::fs::write(&broken, text.replace("</body>", script)).unwrap();
    let console = look_at(&chromium, &broken, 1100, false, &sandbox.path("broken.png"));
    assert!(console.contains("Content Security Policy"), "{console}");
}
