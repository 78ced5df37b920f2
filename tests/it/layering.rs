//! Who may import whom: the sources against the tables of `ARCHITECTURE.md`.

use crate::sources::{Source, root, rust_files};
use std::collections::{BTreeMap, BTreeSet};

/// Macros stand at the root of the crate, wherever they are defined.
const MACROS: &[(&str, &str)] = &[("with_array", "tensor")];

/// What only some modules may know: the name of a crate or macro, and the modules.
const CONFINED: &[(&str, &[&str])] = &[
    ("ort::", &["runtime"]),
    ("libloading::", &["runtime"]),
    ("prost::", &["onnx"]),
    ("clap::", &["cli"]),
    ("anyhow::", &["cli"]),
    ("indicatif::", &["cli"]),
    ("println!", &["cli"]),
    ("print!", &["cli"]),
    ("stdout()", &["cli"]),
    ("stderr()", &["cli"]),
];

/// The table under “Floors”: each module with those that it may import; `all` stands for every module.
fn floors() -> BTreeMap<String, BTreeSet<String>> {
    let text = std::fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let section = text.split("\n## ").find(|part| part.starts_with("Floors"));
    let rows = section.expect("a section on floors").lines();
    let quoted = |cell: &str| -> BTreeSet<String> {
        cell.split('`')
            .skip(1)
            .step_by(2)
            .map(str::to_owned)
            .collect()
    };
    rows.filter(|row| row.starts_with('|'))
        .filter_map(|row| {
            let cells: Vec<&str> = row.split('|').collect();
            let module = quoted(cells[2]).into_iter().next()?;
            Some((module, quoted(cells[3])))
        })
        .collect()
}

/// The modules of this crate that a source names.
fn imports(source: &Source) -> BTreeSet<String> {
    let mut modules = BTreeSet::new();
    for (position, _) in source.code.match_indices("crate::") {
        let rest = &source.code[position + "crate::".len()..];
        if let Some(group) = rest.strip_prefix('{') {
            modules.extend(group_heads(group));
        } else {
            modules.insert(head(rest));
        }
    }
    let defined = |name: String| {
        let known = MACROS.iter().find(|(called, _)| *called == name);
        known.map_or(name, |(_, module)| (*module).to_owned())
    };
    modules.into_iter().map(defined).collect()
}

/// The identifier that a text begins with.
fn head(text: &str) -> String {
    text.chars()
        .take_while(|c| c.is_alphanumeric() || *c == '_')
        .collect()
}

/// The first identifiers of each path in `a::b, c::{d, e}}…`.
fn group_heads(group: &str) -> Vec<String> {
    let (mut heads, mut depth, mut start) = (Vec::new(), 0, true);
    for (position, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => start = true,
            c if start && !c.is_whitespace() => {
                heads.push(head(&group[position..]));
                start = false;
            }
            _ => {}
        }
    }
    heads
}

#[test]
fn every_module_has_a_floor_and_imports_only_what_its_row_lists() {
    let floors = floors();
    let mut faults = Vec::new();
    for source in rust_files("src") {
        let Some(module) = source.module() else {
            continue;
        };
        let Some(allowed) = floors.get(&module) else {
            faults.push(format!("{}: no row for `{module}`", source.path));
            continue;
        };
        for import in imports(&source) {
            if import != module && !allowed.contains(&import) && !allowed.contains("all") {
                faults.push(format!(
                    "{}: `{module}` may not import `{import}`",
                    source.path
                ));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn every_row_is_a_module_and_floors_have_no_cycle() {
    let floors = floors();
    for module in floors.keys() {
        let (folder, file) = (format!("src/{module}/mod.rs"), format!("src/{module}.rs"));
        assert!(
            root().join(folder).exists() || root().join(file).exists(),
            "{module}"
        );
    }
    let mut left = floors;
    loop {
        let names: BTreeSet<String> = left.keys().cloned().collect();
        let before = left.len();
        left.retain(|_, imports| imports.contains("all") || !imports.is_disjoint(&names));
        if left.len() == before {
            break;
        }
    }
    // What imports everything is above everything.
    assert_eq!(left.into_keys().collect::<Vec<_>>(), ["cli"]);
}

#[test]
fn crates_of_the_edge_stay_at_the_edge() {
    let mut faults = Vec::new();
    for source in rust_files("src") {
        let Some(module) = source.module() else {
            continue;
        };
        for (what, modules) in CONFINED {
            let found = source.code.match_indices(what).any(|(position, _)| {
                let before = source.code[..position].chars().next_back();
                !before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':')
            });
            if found && !modules.contains(&module.as_str()) {
                faults.push(format!("{}: {what} is for {modules:?}", source.path));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn imports_are_found_in_every_form() {
    let source = Source::new(
        "src/model/mod.rs",
        "use crate::graph::Graph; // crate::cli\n/// [`crate::data`]\nuse crate::{onnx, grad::{self, loss}, threat};\nlet x = crate::with_array!(y);",
    );
    let found: Vec<String> = imports(&source).into_iter().collect();
    assert_eq!(found, ["grad", "graph", "onnx", "tensor", "threat"]);
}
