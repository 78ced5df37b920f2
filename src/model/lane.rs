//! Lanes: sessions of one graph that run at the same time, each on cores of its own.
//!
//! On a CPU, a core that works through its own samples waits for no other, where threads inside operators wait for each other at the end of
//! every operator.

use super::Error;
use crate::onnx::{self, ModelProto};
use crate::runtime::{self, Device, Session, SessionOptions};

/// What the weights of all lanes but the first may take together, in bytes: each lane has a copy.
const COPIES: usize = 64 << 20;

/// How each lane is to be loaded, for a graph that has work for so many lanes at most; never none.
pub(super) fn plan(
    options: &SessionOptions,
    model: &ModelProto,
    most: usize,
) -> Result<Vec<SessionOptions>, Error> {
    let mut lanes = Vec::new();
    for device in std::iter::once(options.device).chain(options.others.iter().copied()) {
        let left = most.saturating_sub(lanes.len());
        if left > 0 || lanes.is_empty() {
            lanes.extend(on_device(options, device, model, left)?);
        }
    }
    Ok(lanes)
}

/// The lanes of one device.
fn on_device(
    options: &SessionOptions,
    device: Device,
    model: &ModelProto,
    most: usize,
) -> Result<Vec<SessionOptions>, Error> {
    let options = SessionOptions {
        device,
        others: Vec::new(),
        takes_turns: true,
        ..options.clone()
    };
    if runtime::resolve(options.device)? != Device::Cpu {
        return Ok(vec![options]);
    }
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = options.threads.unwrap_or(cores);
    let count = count(threads, onnx::encoded_len(model), most);
    if count == 1 {
        return Ok(vec![options]);
    }
    let lane = SessionOptions {
        threads: Some(threads / count),
        ..options
    };
    Ok(vec![lane; count])
}

/// One lane per thread, as far as work and memory go.
fn count(threads: usize, bytes: usize, most: usize) -> usize {
    let copies = 1 + COPIES / bytes.max(1);
    threads.min(copies).min(most).max(1)
}

/// Loads every lane, at the same time.
pub(super) fn load(model: &ModelProto, plan: &[SessionOptions]) -> Result<Vec<Session>, Error> {
    let mut lanes: Vec<&SessionOptions> = plan.iter().collect();
    abreast(&mut lanes, |_, options| super::load(model, options))
}

/// Runs every lane with its number: the first on this thread, the others on rayon's.
///
/// # Errors
/// The first error in the order of the lanes.
pub(super) fn abreast<L: Send, T: Send>(
    lanes: &mut [L],
    run: impl Fn(usize, &mut L) -> Result<T, Error> + Sync,
) -> Result<Vec<T>, Error> {
    let Some((first, others)) = lanes.split_first_mut() else {
        return Ok(Vec::new());
    };
    let mut results: Vec<Option<Result<T, Error>>> = others.iter().map(|_| None).collect();
    let own = rayon::in_place_scope(|scope| {
        for (index, (lane, result)) in others.iter_mut().zip(&mut results).enumerate() {
            let run = &run;
            scope.spawn(move |_| *result = Some(run(index + 1, lane)));
        }
        run(0, first)
    });
    let mut all = vec![own?];
    for result in results {
        all.push(result.ok_or_else(|| Error::Internal("a lane did not run".into()))??);
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_thread_has_a_lane_where_work_and_memory_allow_it() {
        assert_eq!(count(8, 1 << 20, 256), 8);
        assert_eq!(count(8, 1 << 20, 3), 3);
        assert_eq!(count(8, 30 << 20, 256), 3);
        assert_eq!(count(8, 100 << 20, 256), 1);
        assert_eq!(count(1, 0, 1), 1);
    }
}
