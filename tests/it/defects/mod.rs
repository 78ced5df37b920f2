//! The defects of other attack libraries, each with the test that fails if mohs has it.
//!
//! Each was read in a library's code, measured, or reported by its users; the libraries go by their names.
//! A test is named by the file that it is in, `tests` where that file is no more than the tests of its folder.

mod losses;
mod points;

use crate::attacks::Collector;
use crate::cli::Sandbox;
use crate::cli::fixtures::{Tiny, npz};
use crate::sources::{root, rust_files};
use mohs::data::{Dataset, Source};
use mohs::evaluate::{Config, Report, evaluate};
use mohs::model::{Model, ModelOptions};
use ndarray::{Array1, Array2};
use std::collections::BTreeSet;

/// A defect, and the tests that fail where there is one of its kind.
type Defect = (&'static str, &'static [&'static str]);

/// What belongs together: the attack or the part of it.
type Group = (&'static str, &'static [Defect]);

const DEFECTS: &[Group] = &[
    (
        "signs, norms and reductions",
        &[
            (
                "sign(0) is 1, as with Rust's `signum`, so that elements without gradient move by ε",
                &[
                    "host::sign_is_zero_at_both_zeros_and_at_nan",
                    "fgsm::elements_without_gradient_stay",
                    "tests::elements_without_gradient_have_no_sign",
                ],
            ),
            (
                "a constant is added to the norm that divides a gradient (torchattacks, cleverhans, robustness): confident samples stand still",
                &[
                    "tests::tiny_and_huge_gradients_have_a_direction_of_length_one",
                    "fgm::the_size_of_the_gradient_does_not_matter",
                    "losses::a_confident_sample_is_attacked_like_any_other",
                ],
            ),
            (
                "0/0 where a gradient is zero (TRADES), or a step in a random direction in its place",
                &[
                    "tests::a_gradient_of_zero_gives_no_step_and_no_nan",
                    "fgm::a_gradient_of_zero_leaves_the_sample",
                    "deepfool::a_dead_gradient_moves_nothing",
                    "hyperplane::a_dead_gradient_moves_nothing",
                ],
            ),
            (
                "samples with dead gradients count as robust, and nobody is told (ART, AutoAttack)",
                &[
                    "diagnostics::gradients_that_are_zero_are_found",
                    "diagnose::zero_gradients_are_grave_from_one_in_a_hundred",
                ],
            ),
            (
                "the loss is a mean over the batch (torchattacks, ART), so that a gradient depends on the batch's size",
                &["losses::the_gradient_of_a_sample_does_not_depend_on_the_batch"],
            ),
            (
                "the last iterate alone is judged (Foolbox, torchattacks, ART, cleverhans, advertorch)",
                &[
                    "points::a_point_on_the_way_that_breaks_the_sample_counts",
                    "autoattack::every_point_counts_whatever_is_kept",
                ],
            ),
        ],
    ),
    (
        "fgsm and fgm",
        &[
            (
                "labels that are not given are the model's own predictions (ART, cleverhans, advertorch): a sample that is wrong counts as robust",
                &["points::a_sample_that_is_wrong_as_it_is_counts_as_broken_without_a_step"],
            ),
            (
                "fgm in ℓ1 is the gradient at length ε (Foolbox), or shared among ties (cleverhans), instead of the steepest element",
                &[
                    "tests::the_l1_direction_is_the_first_largest_element",
                    "fgm::one_step_reaches_the_optimum_of_a_linear_model",
                ],
            ),
            (
                "of several restarts the one that is best for the whole batch is kept (ART: 6.2 points too high)",
                &["points::restarts_are_combined_sample_by_sample"],
            ),
            (
                "a random start and a step of ε after it leave the ball (ART)",
                &["pgd::every_visited_point_is_in_the_ball_and_the_bounds"],
            ),
            (
                "the norm of a perturbed embedding is taken token by token instead of over the whole sample",
                &["methods::every_method_makes_the_steps_that_pytorch_makes"],
            ),
        ],
    ),
    (
        "pgd",
        &[
            (
                "random starts in ℓ2 and ℓ1 are not uniform in the ball, or a scaled cube (torchattacks, cleverhans, advertorch, robustness)",
                &[
                    "threat::draws_stay_in_the_unit_ball_and_fill_it",
                    "threat::draws_have_no_preferred_side",
                ],
            ),
            (
                "the random start is drawn and never added (torchattacks)",
                &["pgd::it_reaches_the_optimum_from_random_starts_too"],
            ),
            (
                "projection on the ℓ1 ball is a rescaling (Foolbox, ART)",
                &["tests::steps_are_projected_to_the_nearest_point"],
            ),
            (
                "projected on the ball first and clipped to the bounds afterwards, which ends short of the surface",
                &["pgd::bounds_are_met_by_projecting_and_not_by_clipping_afterwards"],
            ),
            (
                "the point after the last step is never judged (adversarial-library): n steps do the work of n − 1",
                &["points::the_point_after_the_last_step_is_judged"],
            ),
            (
                "the step size has a fixed default, whatever ε is (ART, torchattacks)",
                &["pgd::the_default_step_size_shrinks_with_the_steps"],
            ),
            (
                "assertions refuse steps longer than ε and balls larger than the range (cleverhans)",
                &["points::steps_longer_than_the_ball_and_balls_beyond_the_bounds_are_no_error"],
            ),
        ],
    ),
    (
        "mi_fgsm",
        &[
            (
                "0/0 enters the momentum and stays (torchattacks): the sample is frozen, and robust",
                &["mi_fgsm::a_zero_gradient_at_first_does_not_stop_the_steps_after_it"],
            ),
            (
                "signs are accumulated instead of gradients (Foolbox)",
                &["mi_fgsm::gradients_are_accumulated_and_not_their_signs"],
            ),
            (
                "the step size is not ε over the number of steps (torchattacks, Foolbox)",
                &["mi_fgsm::the_steps_add_up_to_epsilon"],
            ),
        ],
    ),
    (
        "apgd",
        &[
            (
                "checkpoints that are not those of the paper",
                &["tests::checkpoints_are_those_of_the_paper"],
            ),
            (
                "the first checkpoint counts a rise from 0 (AutoAttack, adversarial-library)",
                &["tests::the_first_checkpoint_counts_from_the_loss_at_the_start"],
            ),
            (
                "the first step size is a parameter instead of 2ε (ART)",
                &["tests::the_first_step_is_twice_the_radius_and_clamped"],
            ),
            (
                "new bests are counted instead of rises from step to step (ART)",
                &["tests::rises_are_counted_from_one_step_to_the_next_and_not_new_bests"],
            ),
            (
                "conditions of the step size with the wrong comparison (ART)",
                &[
                    "apgd::the_largest_loss_rises_as_in_pytorch",
                    "tests::a_loss_that_always_rises_keeps_the_step_size",
                    "tests::a_loss_that_does_not_rise_halves_the_step_size_at_every_checkpoint",
                ],
            ),
            (
                "only the last iterate of a run is scored (ART)",
                &["autoattack::every_point_counts_whatever_is_kept"],
            ),
            (
                "the next restart begins where the last one ended: a random walk (ART)",
                &[
                    "points::every_restart_begins_at_the_clean_sample",
                    "tests::random_starts_are_on_the_surface_of_the_ball",
                ],
            ),
            (
                "toward a class the start is compared with the wrong sign (ART)",
                &[
                    "tests::targets_are_runs_of_their_own",
                    "points::runs_toward_a_class_break_more_than_none",
                ],
            ),
            (
                "broken at its random start, a sample is given back as it was (adversarial-library)",
                &["points::what_is_reported_as_broken_is_broken"],
            ),
            (
                "steps are spent on samples that are broken already (AutoAttack)",
                &["points::no_step_is_spent_on_a_sample_that_is_broken"],
            ),
            (
                "dlr with 2 classes, and its targeted form with 3, ends in an error or NaN (AutoAttack, ART, torchattacks)",
                &[
                    "tests::models_with_few_classes_get_the_loss_that_they_have",
                    "autoattack::few_classes_have_their_variant_and_it_is_said",
                    "autoattack::models_of_few_classes_have_the_variant_that_is_defined_for_them",
                ],
            ),
            (
                "dlr has no gradient where the label is third (AutoAttack), on a sample that is wrong by then and should be done",
                &["points::no_step_is_spent_on_a_sample_that_is_broken"],
            ),
            (
                "the ℓ1 form ends in a ball that is too large, or never looks beyond the smallest",
                &["tests::in_l1_the_balls_shrink_and_the_last_points_are_in_the_smallest"],
            ),
            (
                "with expectation over transformation, the last of twenty passes decides alone (AutoAttack), and a random model is not told",
                &[
                    "tests::several_gradients_at_a_point_are_one_step_along_their_mean",
                    "diagnostics::a_model_that_changes_its_answers_is_found",
                ],
            ),
        ],
    ),
    (
        "fab",
        &[
            (
                "a tenth of the authors' steps by default (torchattacks)",
                &["autoattack::the_budgets_are_those_of_the_authors"],
            ),
            (
                "what lies beyond ε counts, or what lies within does not",
                &["chain::the_nearest_point_breaks_every_radius_that_reaches_it_and_no_other"],
            ),
        ],
    ),
    (
        "square",
        &[
            (
                "one square and one sign for the whole batch (AutoAttack): what a sample gets depends on those beside it",
                &[
                    "tests::every_sample_has_squares_of_its_own",
                    "queries::the_batch_size_changes_no_bit",
                ],
            ),
            (
                "the schedule of sizes is rescaled to the number of queries (torchattacks)",
                &["tests::squares_shrink_after_the_iterations_of_the_paper"],
            ),
            (
                "pictures that are not square are attacked beside the point (AutoAttack)",
                &[
                    "grid::every_shape_is_a_picture_of_some_kind",
                    "grid::windows_keep_their_area_in_narrow_pictures",
                    "grid::positions_cover_every_element_once",
                ],
            ),
        ],
    ),
    (
        "cw, ddn and fmn",
        &[
            (
                "negative logits count as 0 in the margin (torchattacks, the challenge code of cw's followers)",
                &["losses::the_margin_takes_negative_logits_as_they_are"],
            ),
            (
                "pixels at 0 and 1 have no gradient in tanh space (torchattacks): black backgrounds cannot be touched",
                &[
                    "cw::pixels_at_a_bound_can_move",
                    "losses::black_and_white_pictures_are_broken",
                ],
            ),
            (
                "a model that ends in Softmax is attacked through it, and hardly (Foolbox)",
                &[
                    "losses::a_softmax_at_the_end_weakens_no_attack",
                    "diagnostics::probabilities_are_found_with_and_without_a_softmax",
                ],
            ),
            (
                "the search ends by the loss of the whole batch (Foolbox, torchattacks)",
                &[
                    "cw::a_sample_gets_the_same_alone_as_in_a_batch",
                    "minimum_norm::the_batch_size_changes_no_distance",
                ],
            ),
            (
                "no search for the constant (torchattacks), or ten steps of it (ART)",
                &["cw::the_nearest_point_of_a_linear_model_is_found"],
            ),
            (
                "projection on the ball is a rescaling to its sphere, with elements cut at 1 (adversarial-library's fmn)",
                &[
                    "fmn::a_point_within_the_ball_is_not_pushed_onto_its_sphere",
                    "fmn::perturbations_may_be_longer_than_one",
                ],
            ),
        ],
    ),
    (
        "autoattack",
        &[
            (
                "the name without the attack: a tenth of the steps (torchattacks), or neither targets nor fab (ART)",
                &[
                    "autoattack::the_versions_are_those_of_the_authors",
                    "autoattack::the_budgets_are_those_of_the_authors",
                ],
            ),
            (
                "a target for every class, 999 of them on ImageNet (torchattacks)",
                &["autoattack::the_versions_are_those_of_the_authors"],
            ),
            (
                "slack in the test of ε (ART: 1e-4)",
                &[
                    "confine::the_stored_point_is_inside_exactly",
                    "points::what_is_reported_as_broken_is_broken",
                ],
            ),
            (
                "attacks are averaged, or the best of them for the whole set is taken, instead of the worst case of each sample",
                &["autoattack::a_sample_is_broken_exactly_where_one_of_the_attacks_breaks_it"],
            ),
        ],
    ),
    (
        "libraries as a whole",
        &[
            (
                "the last restart overwrites every sample, broken before or not (robustness)",
                &[
                    "points::restarts_are_combined_sample_by_sample",
                    "chain::restarts_follow_only_where_the_sample_still_stands",
                ],
            ),
            (
                "the inner maximisation of TRADES divides by a norm of zero and spends a step on noise",
                &[
                    "methods::trades_starts_where_the_reference_does",
                    "tests::a_gradient_of_zero_gives_no_step_and_no_nan",
                ],
            ),
            (
                "the random start of training is not clipped to the bounds (the code of Fast-AT on MNIST)",
                &["pgd::every_visited_point_is_in_the_ball_and_the_bounds"],
            ),
            (
                "a README whose figure is in no paper (Fast-AT: 86.06 %)",
                &["defects::a_figure_that_nobody_measured_is_quoted_nowhere"],
            ),
        ],
    ),
];

/// The names of tests, with the file that each is in.
fn known() -> BTreeSet<String> {
    let mut known = BTreeSet::new();
    for source in rust_files("src").into_iter().chain(rust_files("tests/it")) {
        let mut lines = source.text.lines().map(str::trim);
        while let Some(line) = lines.next() {
            if line != "#[test]" {
                continue;
            }
            let named = lines.find_map(|line| line.strip_prefix("fn ")).unwrap();
            let name = named.split('(').next().unwrap();
            known.insert(format!("{}::{name}", source.name()));
        }
    }
    known
}

#[test]
fn every_defect_has_a_test_that_there_is() {
    let known = known();
    for (group, defects) in DEFECTS {
        assert!(!defects.is_empty(), "{group}");
        for (defect, tests) in *defects {
            assert!(!tests.is_empty(), "{defect}");
            for test in *tests {
                assert!(
                    known.contains(*test),
                    "{group}: {defect}: no test is {test}"
                );
            }
        }
    }
}

/// Every test of this folder is there for a defect.
#[test]
fn every_test_here_is_in_the_table() {
    let listed: BTreeSet<&str> = DEFECTS
        .iter()
        .flat_map(|(_, defects)| defects.iter())
        .flat_map(|(_, tests)| tests.iter().copied())
        .collect();
    for test in known() {
        if test.starts_with("points::") || test.starts_with("losses::") {
            assert!(listed.contains(test.as_str()), "{test}");
        }
    }
}

/// The table of Fast-AT's README has another clean accuracy than the paper.
#[test]
fn a_figure_that_nobody_measured_is_quoted_nowhere() {
    let figure = ["86", "06"].join(".");
    let mut read = 0;
    for folder in ["", "docs", "models"] {
        for entry in std::fs::read_dir(root().join(folder)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|ending| ending == "md") {
                let text = std::fs::read_to_string(&path).unwrap();
                assert!(!text.contains(&figure), "{}", path.display());
                read += 1;
            }
        }
    }
    assert!(read > 5, "{read}");
}

/// A tiny model with samples of its own.
struct Case {
    model: Model,
    data: Dataset,
    _sandbox: Sandbox,
}

impl Case {
    fn new(tiny: &Tiny, x: Array2<f32>, y: &Array1<i64>) -> Self {
        crate::runtime_ready();
        let sandbox = Sandbox::new();
        tiny.write(&sandbox, "model.onnx");
        npz(&sandbox, "data.npz", &x.into_dyn(), y);
        Case {
            model: Model::open(&sandbox.path("model.onnx"), &ModelOptions::default()).unwrap(),
            data: Dataset::open(&Source::new(sandbox.path("data.npz"))).unwrap(),
            _sandbox: sandbox,
        }
    }

    fn run(&self, config: &Config) -> (Collector, Report) {
        let mut collector = Collector::default();
        let report = evaluate(&self.model, &self.data, config, None, &mut collector).unwrap();
        (collector, report)
    }
}
