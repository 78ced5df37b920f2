//! A lane: some of a program's slots with a session of their own, so that several lanes run at the same time.
//!
//! On a CPU, a core that works through its own part of the batch waits for no other until the step is over, where threads inside operators wait
//! for each other at the end of every operator.

use super::Error;
use super::buffer::Buffer;
use crate::onnx::{self, ModelProto};
use crate::runtime::{self, Device, Session, SessionOptions, Value};

/// What the weights of all lanes but the first may take together, in bytes: each lane has a copy.
const COPIES: usize = 64 << 20;

/// How many lanes there are, and the threads within each: none is ONNX Runtime's own choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) lanes: usize,
    pub(super) threads: Option<usize>,
}

impl Plan {
    /// For a graph of that many bytes and that many slots.
    pub(super) fn new(
        options: &SessionOptions,
        model: &ModelProto,
        slots: usize,
    ) -> Result<Self, Error> {
        let one = Plan {
            lanes: 1,
            threads: options.threads,
        };
        if runtime::resolve(options.device)? != Device::Cpu {
            return Ok(one);
        }
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = options.threads.unwrap_or(cores);
        let lanes = lanes(threads, onnx::encoded_len(model), slots);
        Ok(match lanes {
            1 => one,
            _ => Plan {
                lanes,
                threads: Some(threads / lanes),
            },
        })
    }
}

/// One lane per thread, as far as slots and memory go.
fn lanes(threads: usize, bytes: usize, slots: usize) -> usize {
    let copies = 1 + COPIES / bytes.max(1);
    threads.min(copies).min(slots).max(1)
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

/// A session with the buffers of its slots.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) session: Session,
    pub(super) point: Buffer,
    pub(super) clean: Buffer,
    pub(super) data: Option<Buffer>,
    pub(super) labels: Buffer,
    pub(super) targets: Option<Buffer>,
    pub(super) epsilon: Buffer,
    pub(super) step_size: Buffer,
    pub(super) states: Vec<Buffer>,
}

/// What one run of a lane gave, one row per slot.
#[derive(Debug)]
pub(super) struct Ran {
    pub(super) predictions: Value,
    pub(super) losses: Value,
    pub(super) magnitudes: Value,
    pub(super) next: Next,
}

/// The next points and states of a lane.
#[derive(Debug)]
pub(super) struct Next {
    pub(super) point: Buffer,
    states: Vec<Value>,
}

impl Lane {
    /// Every buffer, in an order that all lanes share.
    pub(super) fn buffers(&mut self) -> impl Iterator<Item = &mut Buffer> {
        let single = [
            &mut self.point,
            &mut self.clean,
            &mut self.labels,
            &mut self.epsilon,
            &mut self.step_size,
        ];
        let several = self.targets.iter_mut().chain(&mut self.data);
        single.into_iter().chain(several).chain(&mut self.states)
    }

    /// Evaluates every slot's point and computes the next.
    pub(super) fn run(&mut self) -> Result<Ran, Error> {
        let single = [
            &self.point,
            &self.clean,
            &self.labels,
            &self.epsilon,
            &self.step_size,
        ];
        let several = self.targets.iter().chain(&self.data).chain(&self.states);
        let buffers = single.into_iter().chain(several);
        let inputs: Vec<(&str, &Value)> = buffers
            .map(|buffer| (buffer.feed.name.as_str(), &buffer.value))
            .collect();
        let mut outputs = self.session.run(&inputs)?.into_iter();
        let mut next = || {
            outputs
                .next()
                .ok_or_else(|| Error::Internal("the program gave too few outputs".into()))
        };
        Ok(Ran {
            predictions: next()?,
            losses: next()?,
            magnitudes: next()?,
            next: Next {
                point: Buffer {
                    feed: self.point.feed.clone(),
                    value: next()?,
                },
                states: outputs.collect(),
            },
        })
    }

    /// Goes on to the next points.
    pub(super) fn advance(&mut self, next: Next) {
        self.point = next.point;
        for (buffer, value) in self.states.iter_mut().zip(next.states) {
            buffer.value = value;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_thread_has_a_lane_where_slots_and_memory_allow_it() {
        assert_eq!(lanes(8, 1 << 20, 256), 8);
        assert_eq!(lanes(8, 1 << 20, 3), 3);
        assert_eq!(lanes(8, 30 << 20, 256), 3);
        assert_eq!(lanes(8, 100 << 20, 256), 1);
        assert_eq!(lanes(1, 0, 1), 1);
    }
}
