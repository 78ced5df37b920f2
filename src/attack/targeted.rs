//! Runs toward single classes, and several gradients for one step: what attacks that follow a loss have in common.

use super::{AttackSpec, Error, Loss, Parameter};
use std::num::NonZeroU32;

/// The parameter `targets`.
pub(super) const TARGETS: Parameter = Parameter {
    name: "targets",
    default: "0",
    accepts: "a whole number from 0 to 4294967295",
    help: "Toward how many classes to run, one after the other, with the targeted form of the loss: those with the largest scores of the clean sample beside the label; 0 goes toward none in particular. With fewer than 4 classes the targeted margin takes the place of the targeted dlr.",
};

/// The parameter `targets` of attacks that follow the margin.
pub(super) const MARGIN_TARGETS: Parameter = Parameter {
    help: "Toward how many classes to run, one after the other, with the targeted margin: those with the largest scores of the clean sample beside the label; 0 goes toward none in particular. Each run starts anew, and the nearest point of all counts.",
    ..TARGETS
};

/// The parameter `eot`.
pub(super) const EOT: Parameter = Parameter {
    name: "eot",
    default: "1",
    accepts: "a whole number from 1 to 4294967295",
    help: "How many gradients each step takes the mean of: for models with randomness (expectation over transformation).",
};

/// Refuses targets with a loss that goes toward no class.
pub(super) fn check(spec: &AttackSpec, targets: u32, loss: Loss) -> Result<(), Error> {
    if targets > 0 && loss == Loss::CrossEntropy {
        return Err(spec.refuse(
            "the cross-entropy has no targeted form; use loss=dlr or loss=margin with targets",
        ));
    }
    Ok(())
}

/// Refuses restarts that would all be the same.
pub(super) fn check_restarts(
    spec: &AttackSpec,
    restarts: NonZeroU32,
    random_start: bool,
) -> Result<(), Error> {
    if restarts > NonZeroU32::MIN && !random_start {
        return Err(spec.refuse(format!(
            "restarts={restarts} with random_start=false would run the same attack again and again; allow the random start, or drop the restarts"
        )));
    }
    Ok(())
}

/// Refuses more gradients than can be counted.
pub(super) fn check_passes(
    spec: &AttackSpec,
    steps: NonZeroU32,
    eot: NonZeroU32,
) -> Result<(), Error> {
    match steps.checked_mul(eot) {
        Some(_) => Ok(()),
        None => Err(spec.refuse("steps times eot must be at most 4294967295")),
    }
}

/// How many runs there are with so many restarts toward each of the targets.
pub(super) fn runs(restarts: NonZeroU32, targets: u32) -> u32 {
    restarts.get().saturating_mul(targets.max(1))
}

/// The loss toward a class, on a model of so many classes: the targeted dlr looks at four scores.
pub(super) fn loss_for(loss: Loss, targets: u32, classes: usize) -> Loss {
    match loss {
        Loss::Dlr if targets > 0 && classes < 4 => Loss::Margin,
        loss => loss,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attack::AttackPlan;
    use crate::attack::linear::{Scene, weights};
    use crate::threat::{Bounds, Norm};
    use std::cell::Cell;

    /// Attacks that go toward classes only when they are asked to.
    const OPTIONAL: [&str; 8] = [
        "fgsm:loss=margin",
        "fgm:loss=margin",
        "pgd:loss=margin",
        "mi_fgsm:loss=dlr",
        "apgd:loss=dlr",
        "fmn:steps=3",
        "ddn:steps=3",
        "cw:steps=3",
    ];

    #[test]
    fn every_attack_along_a_loss_has_a_form_toward_classes() {
        for text in OPTIONAL {
            let of = |text: &str| AttackPlan::parse(text).unwrap().attacks()[0].clone();
            let (plain, toward) = (of(text), of(&format!("{text},targets=3")));
            let norm = if text.starts_with("fgsm") {
                Norm::Linf
            } else {
                Norm::L2
            };
            toward.check_norm(norm).unwrap();
            assert_eq!(toward.label(), format!("{text},targets=3"));
            let (plain, toward) = (plain.gradient().unwrap(), toward.gradient().unwrap());
            assert_eq!((plain.targets(), plain.restarts()), (0, 1), "{text}");
            assert_eq!((toward.targets(), toward.restarts()), (3, 3), "{text}");
            // No loss without a targeted form.
            assert_ne!(toward.loss(), Loss::CrossEntropy, "{text}");
            assert_eq!(toward.loss_for(3), Loss::Margin, "{text}");
        }
    }

    #[test]
    fn the_cross_entropy_goes_toward_no_class() {
        for name in ["fgsm", "fgm", "pgd", "mi_fgsm", "apgd"] {
            let message = AttackPlan::parse(&format!("{name}:targets=2")).unwrap_err();
            assert_eq!(
                message.to_string(),
                format!(
                    "attack `{name}`: the cross-entropy has no targeted form; use loss=dlr or loss=margin with targets"
                )
            );
        }
    }

    #[test]
    fn several_gradients_for_a_step_are_counted_and_move_it_once() {
        for name in ["pgd", "mi_fgsm", "apgd"] {
            let plan = AttackPlan::parse(&format!("{name}:steps=5,eot=4")).unwrap();
            let attack = plan.attacks()[0].gradient().unwrap();
            assert_eq!((attack.steps(), attack.moves()), (20, 5), "{name}");
            let plan = AttackPlan::parse(&format!("{name}:steps=5")).unwrap();
            let plain = plan.attacks()[0].gradient().unwrap();
            assert_eq!(attack.state().len(), plain.state().len() + 3, "{name}");
            assert_eq!(attack.step_size(0.1), plain.step_size(0.1), "{name}");
            let most = AttackPlan::parse(&format!("{name}:steps=4294967295,eot=2"));
            assert!(most.unwrap_err().to_string().contains("steps times eot"));
        }
    }

    /// The first of three gradients leads the wrong way, and their mean the right one.
    #[test]
    fn steps_go_along_the_mean_of_the_gradients_at_a_point() {
        for norm in Norm::CONVEX {
            for name in ["pgd:random_start=false", "mi_fgsm:step_size=0.05"] {
                let scene = Scene::new(norm, 0.5, Bounds::UNIT, 6, 50);
                let weights = weights(6, 50);
                let of = |text: String| AttackPlan::parse(&text).unwrap().attacks()[0].clone();
                let once = of(format!("{name},steps=5"));
                let once = once.gradient().unwrap();
                let once = scene.run(once.as_ref(), None, |_| weights.clone());
                let thrice = of(format!("{name},steps=5,eot=3"));
                let (thrice, calls) = (thrice.gradient().unwrap(), Cell::new(0));
                let thrice = scene.run(thrice.as_ref(), None, |_| {
                    let share = [-1.0_f32, 3.0, 1.0][calls.get() % 3];
                    calls.set(calls.get() + 1);
                    &weights * share
                });
                for (step, point) in once.iter().enumerate() {
                    let error = (point - &thrice[3 * step]).mapv(f32::abs).sum();
                    assert!(error < 1e-4, "{name} {norm}, step {step}: {error}");
                }
                assert_eq!((&thrice[0], &thrice[1]), (&thrice[2], &thrice[0]));
            }
        }
    }
}
