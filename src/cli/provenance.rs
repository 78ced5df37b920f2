//! Where an evaluation's numbers come from, put together from what it ran on.

use super::arguments::EvaluateArguments;
use super::evaluate::Work;
use super::exit::{Blame, Failure};
use crate::attack::{ATTACKS, Planned};
use crate::data::sha256;
use crate::evaluate::Keep;
use crate::outcome::{AttackRecord, FileRecord, Provenance, timestamp};
use crate::runtime;
use crate::threat::Bounds;
use std::collections::BTreeMap;
use std::fmt::Display;
use std::time::{SystemTime, UNIX_EPOCH};

/// The key of a graph of gradients that was made elsewhere.
const GRADIENT: &str = "gradient";

/// What only the command line knows: how samples were chosen and read.
pub(super) fn asked(arguments: &EvaluateArguments) -> BTreeMap<String, String> {
    let reading = &arguments.reading;
    let mut asked = BTreeMap::new();
    let mut set = |name: &str, value: String| asked.insert(name.to_owned(), value);
    set("offset", reading.offset.to_string());
    let limit = reading
        .limit
        .map_or("none".to_owned(), |limit| limit.to_string());
    set("limit", limit);
    if !reading.mean.is_empty() {
        set("mean", joined(&reading.mean));
        set("std", joined(&reading.std));
    }
    if let Some(scale) = reading.scale {
        set("scale", scale.to_string());
    }
    if let Some(tensor) = &arguments.model.wrt {
        set("wrt", tensor.clone());
    }
    if let Some(path) = &arguments.gradient {
        set(GRADIENT, path.display().to_string());
    }
    asked
}

/// The whole record; without the digests of files, which take reading all of them, where nothing shows them.
pub(super) fn of(
    work: &Work<'_>,
    asked: BTreeMap<String, String>,
    sources: Vec<FileRecord>,
    with_digests: bool,
) -> Result<Provenance, Failure> {
    let (model, config) = (work.model, &work.threats.common);
    let session = model.session_options();
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let mut models = vec![FileRecord {
        path: model.path().display().to_string(),
        sha256: model.sha256().to_owned(),
    }];
    models.extend(sources);
    let mut data = Vec::new();
    if with_digests {
        if let Some(path) = asked.get(GRADIENT) {
            models.push(FileRecord {
                path: path.clone(),
                sha256: sha256(path.as_ref()).or_bad_input()?,
            });
        }
        for (path, sha256) in work.dataset.digests().or_bad_input()? {
            data.push(FileRecord {
                path: path.display().to_string(),
                sha256,
            });
        }
    }
    let mut parameters = parameters(work);
    parameters.extend(asked);
    Ok(Provenance {
        mohs: env!("CARGO_PKG_VERSION").to_owned(),
        onnxruntime: runtime::version().unwrap_or("unknown").to_owned(),
        device: super::session::names(session.device, &session.others),
        platform: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
        date: timestamp(now.map_or(0, |now| now.as_secs())),
        command: std::env::args_os()
            .map(|word| word.to_string_lossy().into_owned())
            .collect(),
        models,
        data,
        seed: config.seed,
        attacks: config.attacks.attacks().iter().map(attack_record).collect(),
        parameters,
    })
}

/// What a run is determined by beside files, seed and attacks.
fn parameters(work: &Work<'_>) -> BTreeMap<String, String> {
    let (model, dataset, config) = (work.model, work.dataset, &work.threats.common);
    let session = model.session_options();
    let bounds = if config.bounds == Bounds::NONE {
        "none".to_owned()
    } else {
        format!("{},{}", config.bounds.low, config.bounds.high)
    };
    let each = &work.threats.each;
    let norms: Vec<&str> = each.iter().map(|config| config.norm.name()).collect();
    let radii: Vec<String> = each
        .iter()
        .flat_map(|config| {
            let name = |epsilon: &f64| match each.len() {
                1 => epsilon.to_string(),
                _ => format!("{}:{epsilon}", config.norm),
            };
            config.epsilons.iter().map(name)
        })
        .collect();
    let automatic = |value: Option<usize>| value.map_or("auto".to_owned(), |n| n.to_string());
    let keep = match config.keep {
        Keep::Any => "any",
        Keep::Last => "last",
    };
    let pairs = [
        ("norm", norms.join(",")),
        ("epsilon", radii.join(",")),
        ("bounds", bounds),
        ("keep", keep.to_owned()),
        ("batch_size", automatic(config.batch_size)),
        ("threads", automatic(session.threads)),
        ("keep_softmax", config.keep_softmax.to_string()),
        ("straight_through", model.straight_through().to_string()),
        ("search_precision", model.search_precision().to_string()),
        ("input", model.input().to_owned()),
        ("output", model.output().to_owned()),
        ("sample_shape", joined(model.sample_shape())),
        ("data_format", dataset.format().to_owned()),
        ("samples", dataset.len().to_string()),
    ];
    pairs
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}

fn joined<T: Display>(values: &[T]) -> String {
    let texts: Vec<String> = values.iter().map(ToString::to_string).collect();
    texts.join(",")
}

/// An attack's parameters: what its label says, and the defaults of all others.
fn attack_record(attack: &Planned) -> AttackRecord {
    let label = attack.label();
    let (name, given) = label.split_once(':').unwrap_or((&label, ""));
    let spec = ATTACKS.iter().find(|spec| spec.name == name);
    let carried = attack.transfer().map(|transfer| transfer.attack.name());
    let of_source = ATTACKS.iter().find(|spec| Some(spec.name) == carried);
    let specs = of_source.into_iter().chain(spec);
    let defaults = specs.flat_map(|spec| spec.parameters);
    let mut parameters: BTreeMap<String, String> = defaults
        .map(|parameter| (parameter.name.to_owned(), parameter.default.to_owned()))
        .collect();
    let given = given.split(',').filter_map(|pair| pair.split_once('='));
    parameters.extend(given.map(|(name, value)| (name.to_owned(), value.to_owned())));
    AttackRecord { label, parameters }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attack::AttackPlan;

    #[test]
    fn an_attack_s_record_has_what_was_given_and_what_was_not() {
        let plan = AttackPlan::parse("pgd:steps=7").unwrap();
        let record = attack_record(&plan.attacks()[0]);
        assert_eq!(record.label, "pgd:steps=7");
        assert_eq!(record.parameters["steps"], "7");
        assert_eq!(record.parameters["restarts"], "1");
        for parameter in ATTACKS
            .iter()
            .find(|spec| spec.name == "pgd")
            .unwrap()
            .parameters
        {
            assert!(record.parameters.contains_key(parameter.name));
        }
    }

    #[test]
    fn the_record_of_a_transfer_has_the_parameters_of_the_attack_on_the_source() {
        let plan = AttackPlan::parse("transfer:source=a/b.onnx,attack=mi_fgsm,steps=7").unwrap();
        let record = attack_record(&plan.attacks()[0]);
        for (name, value) in [
            ("source", "b.onnx"),
            ("attack", "mi_fgsm"),
            ("normalize", "true"),
            ("steps", "7"),
            ("decay", "1"),
        ] {
            assert_eq!(record.parameters[name], value);
        }
    }
}
