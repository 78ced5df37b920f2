use super::dense::Windows;
use super::*;
use crate::attack::AttackPlan;
use crate::attack::host::HostArrays;
use crate::attack::linear::{Scene, weights};
use crate::threat::Bounds;
use ndarray::{Array2, Axis, array, s};

fn apgd(steps: u32) -> Apgd {
    Apgd {
        steps: NonZeroU32::new(steps).unwrap(),
        random_start: false,
        ..Apgd::default()
    }
}

/// The points that the attack visits against losses and gradients of the test's own.
fn visit(
    attack: &Apgd,
    scene: &Scene,
    start: Option<Array2<f32>>,
    model: impl Fn(usize, &Array2<f32>) -> (Array2<f32>, Array2<f32>),
) -> Vec<Array2<f32>> {
    let width = scene.clean.ncols();
    let arrays = HostArrays::new(width);
    let (mut point, mut state) = scene.with(&arrays, 0.0, |context| {
        let begun = attack.init(context, start.map(|noise| arrays.input(noise)));
        let state: Vec<_> = begun.state.iter().map(|&s| arrays.value(s)).collect();
        (arrays.value(begun.point), state)
    });
    let mut visited = vec![point.clone()];
    for step in 0..attack.steps() as usize {
        let arrays = HostArrays::new(width);
        (point, state) = scene.with(&arrays, 0.0, |context| {
            let (loss, gradient) = model(step, &point);
            let pass = Pass {
                point: arrays.input(point.clone()),
                gradient: arrays.input(gradient),
                loss: arrays.input(loss),
                adversarial: arrays.input(Array2::zeros((point.nrows(), 1))),
            };
            let state: Vec<_> = state.drain(..).map(|s| arrays.input(s)).collect();
            let next = attack.step(context, &pass, &state);
            let state = next.state.iter().map(|&s| arrays.value(s)).collect();
            (arrays.value(next.point), state)
        });
        visited.push(point.clone());
    }
    visited
}

/// w · (x − clean) and w.
fn linear<'a>(
    scene: &'a Scene,
    weights: &'a Array2<f32>,
) -> impl Fn(usize, &Array2<f32>) -> (Array2<f32>, Array2<f32>) + 'a {
    move |_, point| {
        let loss = ((point - &scene.clean) * weights).sum_axis(Axis(1));
        (loss.insert_axis(Axis(1)), weights.clone())
    }
}

#[test]
fn it_reaches_the_optimum_of_a_linear_model() {
    for (norm, epsilon, bounds) in [
        (Norm::Linf, 0.1, Bounds::UNIT),
        (Norm::Linf, 0.1, Bounds::NONE),
        (Norm::L2, 0.5, Bounds::NONE),
        (Norm::L2, 0.5, Bounds::UNIT),
        (Norm::L2, 2.5, Bounds::UNIT),
        (Norm::L1, 0.5, Bounds::NONE),
        (Norm::L1, 2.5, Bounds::UNIT),
    ] {
        for random in [false, true] {
            let scene = Scene::new(norm, epsilon, bounds, 6, 50);
            let weights = weights(6, 50);
            let noise = random.then(|| scene.noise(&[0, 1, 2, 3, 4, 5]));
            let visited = visit(&apgd(100), &scene, noise, linear(&scene, &weights));
            let mut found = vec![f64::NEG_INFINITY; 6];
            // In ℓ1 the first balls are larger.
            let counted = if norm == Norm::L1 { 61 } else { 0 };
            for point in &visited[counted..] {
                scene.assert_allowed(point);
                for (found, gain) in found.iter_mut().zip(scene.gain(&weights, point)) {
                    *found = found.max(gain);
                }
            }
            for (found, best) in found.into_iter().zip(scene.best_gain(&weights)) {
                assert!(
                    found >= 0.99 * best,
                    "{norm} {epsilon} {bounds:?} random {random}: {found} of {best}"
                );
            }
        }
    }
}

#[test]
fn checkpoints_are_those_of_the_paper() {
    let windows = Windows::of(100);
    let (mut at, mut window) = (windows.first, windows.first);
    let mut checkpoints = Vec::new();
    while at <= 100 {
        checkpoints.push(at);
        window = window.saturating_sub(windows.less).max(windows.least);
        at += window;
    }
    assert_eq!(checkpoints, [22, 41, 57, 70, 80, 87, 93, 99]);
}

/// Trap (prior art): a fixed first step size makes small radii jump over the ball and large ones crawl.
#[test]
fn the_first_step_is_twice_the_radius_and_clamped() {
    let scene = Scene::new(Norm::Linf, 0.25, Bounds::NONE, 1, 3);
    let visited = visit(&apgd(1), &scene, None, |_, _| {
        (array![[0.0]], array![[1e-30, -1.0, 0.0]])
    });
    let moved = &visited[1] - &scene.clean;
    assert_eq!(moved, array![[0.25, -0.25, 0.0]]);
}

/// The step size by what the next step moves: far from the ball's surface, along a gradient that turns around.
fn scales(losses: &[f32]) -> Vec<f32> {
    let scene = Scene::new(Norm::Linf, 1e3, Bounds::NONE, 1, 1);
    let steps = u32::try_from(losses.len()).unwrap();
    let attack = apgd(steps);
    let arrays = HostArrays::new(1);
    let mut scales = Vec::new();
    let (mut point, mut state) = scene.with(&arrays, 0.0, |context| {
        let begun = attack.init(context, None);
        let state: Vec<_> = begun.state.iter().map(|&s| arrays.value(s)).collect();
        (arrays.value(begun.point), state)
    });
    for &loss in losses {
        let arrays = HostArrays::new(1);
        (point, state) = scene.with(&arrays, 0.0, |context| {
            let pass = Pass {
                point: arrays.input(point.clone()),
                gradient: arrays.input(array![[1.0]]),
                loss: arrays.input(array![[loss]]),
                adversarial: arrays.input(array![[0.0]]),
            };
            let state: Vec<_> = state.drain(..).map(|s| arrays.input(s)).collect();
            let next = attack.step(context, &pass, &state);
            scales.push(arrays.value(State::new(&next.state).scale)[[0, 0]]);
            let state = next.state.iter().map(|&s| arrays.value(s)).collect();
            (arrays.value(next.point), state)
        });
    }
    scales
}

#[test]
fn a_loss_that_always_rises_keeps_the_step_size() {
    let losses: Vec<f32> = (0..100u8).map(f32::from).collect();
    assert!(scales(&losses).iter().all(|&scale| scale == 2.0));
}

#[test]
fn a_loss_that_does_not_rise_halves_the_step_size_at_every_checkpoint() {
    let scales = scales(&[1.0; 100]);
    // After the checkpoint at step 22, which the point of the 23rd pass is.
    for (step, scale) in [
        (21, 2.0),
        (22, 1.0),
        (40, 1.0),
        (41, 0.5),
        (57, 0.25),
        (99, 2.0 / 256.0),
    ] {
        assert_eq!(scales[step], scale, "{step}");
    }
}

/// Trap (prior art): counting new bests instead of rises halves the step size of every attack that swings upwards.
#[test]
fn rises_are_counted_from_one_step_to_the_next_and_not_new_bests() {
    // Up four times and down once: rises in 4 of 5 steps, new bests only at first.
    let mut losses = vec![1000.0f32];
    for step in 1..100 {
        losses.push(if step % 5 == 0 {
            -5.0 * step as f32
        } else {
            losses[step - 1] + 0.1
        });
    }
    // The largest loss rises once in the first window, so that it is the first condition alone that decides there.
    let scales = scales(&losses);
    assert_eq!(scales[22], 2.0);
}

/// The authors' code compares the first point with 0 at the first checkpoint, which counts a rise where there was none.
#[test]
fn the_first_checkpoint_counts_from_the_loss_at_the_start() {
    // 22 steps: ¾ of them are 16.5, so that 17 rises keep the step size and 16 do not.
    let with_rises = |rises: usize| {
        // The first step goes down.
        let mut losses = vec![50.0f32, 1.0];
        for step in 2..=22 {
            let change = if step <= rises + 1 { 1.0 } else { -1.0 };
            losses.push(losses[step - 1] + change);
        }
        losses.resize(100, 0.0);
        scales(&losses)[22]
    };
    assert_eq!(with_rises(17), 2.0);
    assert_eq!(with_rises(16), 1.0);
}

#[test]
fn after_halving_it_goes_on_from_the_best_point() {
    let scene = Scene::new(Norm::Linf, 1.0, Bounds::NONE, 1, 1);
    // The best point is the 5th; the gradient there points up, elsewhere down.
    let visited = visit(&apgd(40), &scene, None, |step, _| {
        let best = step == 5;
        let loss = if best { 9.0 } else { 0.0 };
        (array![[loss]], array![[if best { 1.0 } else { -1.0 }]])
    });
    let windows = Windows::of(40);
    let checkpoint = windows.first as usize;
    assert!(checkpoint > 5);
    let (best, before) = (visited[5][[0, 0]], visited[checkpoint - 1][[0, 0]]);
    let clean = scene.clean[[0, 0]];
    let toward = (best + 1.0).clamp(clean - 1.0, clean + 1.0);
    let expected =
        (best + 0.75 * (toward - best) + 0.25 * (best - before)).clamp(clean - 1.0, clean + 1.0);
    assert!((visited[checkpoint + 1][[0, 0]] - expected).abs() < 1e-6);
}

#[test]
fn random_starts_are_on_the_surface_of_the_ball() {
    for norm in [Norm::Linf, Norm::L2] {
        let scene = Scene::new(norm, 0.5, Bounds::NONE, 6, 50);
        let noise = scene.noise(&[0, 1, 2, 3, 4, 5]);
        let arrays = HostArrays::new(50);
        let point = scene.with(&arrays, 0.0, |context| {
            arrays.value(
                Apgd::default()
                    .init(context, Some(arrays.input(noise)))
                    .point,
            )
        });
        for (clean, point) in scene.clean.rows().into_iter().zip(point.rows()) {
            let distance = norm.distance(&clean.to_vec(), &point.to_vec());
            assert!((distance - 0.5).abs() < 1e-5, "{norm}: {distance}");
        }
    }
}

#[test]
fn in_l1_the_balls_shrink_and_the_last_points_are_in_the_smallest() {
    let scene = Scene::new(Norm::L1, 1.0, Bounds::UNIT, 6, 50);
    let weights = weights(6, 50);
    let noise = scene.noise(&[0, 1, 2, 3, 4, 5]);
    let visited = visit(&apgd(100), &scene, Some(noise), linear(&scene, &weights));
    for (step, point) in visited.iter().enumerate() {
        let radius = match step {
            0..30 => 3.0,
            30..60 => 2.0,
            _ => 1.0,
        };
        let ball = Scene {
            epsilon: radius,
            clean: scene.clean.clone(),
            ..scene
        };
        ball.assert_allowed(point);
    }
    let far = |step: usize| {
        let point = visited[step].row(0).to_vec();
        Norm::L1.distance(&scene.clean.row(0).to_vec(), &point)
    };
    assert!(far(29) > 2.5 && far(59) > 1.5 && far(100) > 0.9);
}

/// Trap (prior art): with few steps there must still be a ball of radius ε at the end, and a window of at least one step.
#[test]
fn few_steps_end_in_the_ball_too() {
    for norm in Norm::CONVEX {
        for steps in 1..8 {
            let scene = Scene::new(norm, 0.5, Bounds::UNIT, 6, 50);
            let weights = weights(6, 50);
            let visited = visit(&apgd(steps), &scene, None, linear(&scene, &weights));
            scene.assert_allowed(visited.last().unwrap());
        }
    }
}

#[test]
fn several_gradients_at_a_point_are_one_step_along_their_mean() {
    for norm in Norm::CONVEX {
        let scene = Scene::new(norm, 0.5, Bounds::UNIT, 6, 50);
        let weights = weights(6, 50);
        let once = visit(&apgd(12), &scene, None, linear(&scene, &weights));
        let attack = Apgd {
            eot: NonZeroU32::new(3).unwrap(),
            ..apgd(12)
        };
        assert_eq!(attack.steps(), 36);
        // Gradients and losses that are only right on average.
        let thrice = visit(&attack, &scene, None, |step, point| {
            let (loss, gradient) = linear(&scene, &weights)(step, point);
            let noise = [0.5f32, 1.5, 1.0][step % 3];
            (loss * noise, gradient * noise)
        });
        for (step, point) in once.iter().enumerate() {
            let error = (point - &thrice[3 * step]).mapv(f32::abs).sum();
            assert!(error < 1e-4, "{norm} {step}: {error}");
        }
        assert_eq!(thrice[1], thrice[0]);
    }
}

#[test]
fn a_sample_gets_the_same_alone_as_in_a_batch() {
    for norm in Norm::CONVEX {
        let scene = Scene::new(norm, 0.3, Bounds::UNIT, 6, 50);
        let weights = weights(6, 50);
        let noise = scene.noise(&[0, 1, 2, 3, 4, 5]);
        let wavy = |weights: &Array2<f32>, point: &Array2<f32>| {
            let loss = (point * weights).mapv(f32::sin).sum_axis(Axis(1));
            let gradient = (point * weights).mapv(f32::cos) * weights;
            (loss.insert_axis(Axis(1)), gradient)
        };
        let batch = visit(&apgd(20), &scene, Some(noise), |_, point| {
            wavy(&weights, point)
        });
        let alone = Scene {
            clean: scene.clean.slice(s![4..5, ..]).to_owned(),
            ..scene
        };
        let row = weights.select(Axis(0), &[4]);
        let noise = alone.noise(&[4]);
        let alone = visit(&apgd(20), &alone, Some(noise), |_, point| wavy(&row, point));
        for (batch, alone) in batch.iter().zip(&alone) {
            assert_eq!(batch.slice(s![4..5, ..]), alone, "{norm}");
        }
    }
}

/// Trap (prior art): with 2 or 3 classes dlr is not defined, and an attack that asks for it all the same crashes or stands still.
#[test]
fn models_with_few_classes_get_the_loss_that_they_have() {
    let with = |loss, targets| Apgd {
        loss,
        targets,
        ..Apgd::default()
    };
    assert_eq!(with(Loss::Dlr, 0).loss_for(2), Loss::Margin);
    assert_eq!(with(Loss::Dlr, 0).loss_for(3), Loss::Dlr);
    assert_eq!(with(Loss::Dlr, 9).loss_for(3), Loss::Margin);
    assert_eq!(with(Loss::Dlr, 9).loss_for(4), Loss::Dlr);
    assert_eq!(with(Loss::CrossEntropy, 0).loss_for(2), Loss::CrossEntropy);
}

#[test]
fn targets_are_runs_of_their_own() {
    let attack = Apgd {
        targets: 9,
        restarts: NonZeroU32::new(2).unwrap(),
        loss: Loss::Dlr,
        ..Apgd::default()
    };
    assert_eq!((attack.targets(), attack.restarts()), (9, 18));
}

#[test]
fn parameters_that_make_no_sense_are_refused() {
    for (text, word) in [
        ("apgd:targets=9", "targeted"),
        ("apgd:restarts=2,random_start=false", "random start"),
        ("apgd:steps=70000,eot=70000", "eot"),
    ] {
        let message = AttackPlan::parse(text).unwrap_err().to_string();
        assert!(message.contains(word), "{message}");
    }
}
