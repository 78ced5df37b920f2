//! Nothing is written and then forgotten: every file is a module, every attack, family and reader is in its table.

use crate::sources::{Source, root, rust_files};
use mohs::attack::ATTACKS;
use mohs::data::READERS;
use mohs::grad::rules::FAMILIES;
use mohs::train::methods::METHODS;
use std::path::Path;

/// The files that declare a file as their module, of which one has to.
fn parents(path: &str) -> [String; 2] {
    let own = Path::new(path);
    let folder = own.parent().unwrap();
    let folder = match own.file_name().unwrap().to_str().unwrap() {
        "mod.rs" => folder.parent().unwrap(),
        _ => folder,
    };
    let folder = folder.to_str().unwrap();
    match folder {
        "src" => ["src/lib.rs".into(), "src/main.rs".into()],
        "tests/it" => ["tests/it/main.rs".into(), "tests/it/main.rs".into()],
        _ => [format!("{folder}/mod.rs"), format!("{folder}.rs")],
    }
}

#[test]
fn every_file_is_a_module() {
    for folder in ["src", "tests/it"] {
        for source in rust_files(folder) {
            if ["src/lib.rs", "src/main.rs", "tests/it/main.rs"].contains(&source.path.as_str()) {
                continue;
            }
            let declaration = format!("mod {};", source.name());
            let declared = parents(&source.path).iter().any(|parent| {
                let text = std::fs::read_to_string(root().join(parent)).unwrap_or_default();
                let is_it = |line: &str| {
                    let visibility = line.strip_suffix(&declaration);
                    visibility.is_some_and(|before| before.is_empty() || before.ends_with(' '))
                };
                text.lines().any(is_it)
            });
            assert!(declared, "{}: no file says `{declaration}`", source.path);
        }
    }
}

#[test]
fn every_attack_is_in_its_table() {
    let files: Vec<String> = rust_files("src/attack")
        .iter()
        .filter(|source| source.code.contains("const SPEC: AttackSpec"))
        .map(Source::name)
        .collect();
    let mut listed: Vec<&str> = ATTACKS.iter().map(|spec| spec.name).collect();
    listed.sort_unstable();
    assert_eq!(files, listed);
}

#[test]
fn every_method_of_training_is_in_its_table() {
    let mut files: Vec<String> = rust_files("src/train/methods")
        .iter()
        .filter(|source| source.code.contains("const SPEC: MethodSpec"))
        .map(Source::name)
        .collect();
    files.sort();
    let mut listed: Vec<&str> = METHODS.iter().map(|spec| spec.name).collect();
    listed.sort_unstable();
    assert_eq!(files, listed);
}

#[test]
fn every_family_of_rules_is_in_its_table() {
    let mut files: Vec<String> = rust_files("src/grad/rules")
        .iter()
        .filter(|source| source.code.contains("const RULES: &[Rule]"))
        .map(Source::name)
        .collect();
    files.sort();
    let mut listed: Vec<&str> = FAMILIES.iter().map(|(name, _)| *name).collect();
    listed.sort_unstable();
    assert_eq!(files, listed);
}

#[test]
fn every_reader_is_in_its_table() {
    let files = rust_files("src/data");
    let readers = files
        .iter()
        .filter(|source| source.code.contains("\nimpl Reader for "));
    assert_eq!(readers.count(), READERS.len());
}

#[test]
fn no_operator_has_two_rules() {
    let mut seen = std::collections::BTreeSet::new();
    for rule in FAMILIES.iter().flat_map(|(_, rules)| rules.iter()) {
        assert!(seen.insert((rule.domain, rule.op_type)), "{}", rule.op_type);
    }
}
