//! What every command that runs a model does first: messages, ONNX Runtime, the model.

use super::arguments::{ModelArguments, RuntimeArguments, Verbosity};
use super::exit::Failure;
use super::missing;
use crate::model::{self, Model, ModelOptions};
use crate::runtime::{self, Device, LibraryOptions, SessionOptions};
use crate::{graph::passes::Normalization, onnx};
use anyhow::anyhow;
use std::fmt;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// Messages as `mohs: …` on stderr.
struct Messages;

impl<S, N> FormatEvent<S, N> for Messages
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let kind = match *event.metadata().level() {
            Level::ERROR => "error: ",
            Level::WARN => "warning: ",
            Level::INFO => "",
            Level::DEBUG | Level::TRACE => "debug: ",
        };
        write!(writer, "mohs: {kind}")?;
        context
            .field_format()
            .format_fields(writer.by_ref(), event)?;
        writeln!(writer)
    }
}

/// Sends messages to stderr, as many as asked for.
pub(super) fn listen(verbosity: Verbosity) {
    let level = match verbosity {
        Verbosity::Quiet => Level::ERROR,
        Verbosity::Normal => Level::INFO,
        Verbosity::Verbose => Level::DEBUG,
        Verbosity::Everything => Level::TRACE,
    };
    // A second subscriber in one process (as in tests) is refused, and the first goes on.
    let _ = tracing_subscriber::fmt()
        .with_ansi(false)
        .event_format(Messages)
        .with_writer(std::io::stderr)
        .with_max_level(level)
        .try_init();
}

/// The library options of the arguments.
pub(super) fn library(arguments: &RuntimeArguments) -> LibraryOptions {
    LibraryOptions {
        explicit: arguments.onnxruntime.clone(),
        device: devices(arguments).map_or_else(|_| Device::default(), |(first, _)| first),
        ..LibraryOptions::default()
    }
}

/// The device that was asked for, and those that share the work with it.
fn devices(arguments: &RuntimeArguments) -> Result<(Device, Vec<Device>), Failure> {
    let parsed = arguments.device.split(',').map(|name| name.trim().parse());
    let parsed: Result<Vec<Device>, runtime::ParseDeviceError> = parsed.collect();
    let devices = parsed.map_err(Failure::bad_input)?;
    let repeated = devices
        .iter()
        .enumerate()
        .find(|(at, device)| devices[..*at].contains(device));
    if let Some((_, device)) = repeated {
        return Err(Failure::bad_input(anyhow!("--device names {device} twice")));
    }
    if devices.len() > 1 && devices.contains(&Device::Auto) {
        return Err(Failure::bad_input(anyhow!(
            "--device auto chooses by itself: name every device, as in --device cuda:0,cuda:1"
        )));
    }
    let (first, others) = devices.split_first().unwrap_or((&Device::Auto, &[]));
    Ok((*first, others.to_vec()))
}

/// How devices are written, as `--device` takes them.
pub(super) fn names(device: Device, others: &[Device]) -> String {
    let all = std::iter::once(&device).chain(others);
    all.map(Device::to_string).collect::<Vec<_>>().join(",")
}

/// Loads ONNX Runtime and finds the devices.
pub(super) fn start(arguments: &RuntimeArguments) -> Result<SessionOptions, Failure> {
    let (asked, others) = devices(arguments)?;
    let library = runtime::initialize(&library(arguments)).map_err(Failure::runtime)?;
    tracing::debug!(
        "ONNX Runtime {} from {}",
        library.version,
        library.path.display()
    );
    let device = runtime::resolve(asked).map_err(Failure::runtime)?;
    for &other in &others {
        runtime::resolve(other).map_err(Failure::runtime)?;
    }
    tracing::debug!("the device is {}", names(device, &others));
    Ok(SessionOptions {
        device,
        others,
        threads: arguments.threads.map(std::num::NonZeroUsize::get),
        ..SessionOptions::default()
    })
}

/// Opens a model; its file is looked at before ONNX Runtime is, so that a wrong path costs no download.
pub(super) fn open(
    arguments: &ModelArguments,
    normalization: Option<Normalization>,
    runtime: &RuntimeArguments,
) -> Result<Model, Failure> {
    opened(arguments, normalization, runtime, false)
}

/// Opens a model whose weights are differentiated by, so that its input may be of integers.
pub(super) fn open_for_weights(
    arguments: &ModelArguments,
    normalization: Option<Normalization>,
    runtime: &RuntimeArguments,
) -> Result<Model, Failure> {
    opened(arguments, normalization, runtime, true)
}

fn opened(
    arguments: &ModelArguments,
    normalization: Option<Normalization>,
    runtime: &RuntimeArguments,
    integer_input: bool,
) -> Result<Model, Failure> {
    missing::require(&arguments.model, &[".onnx"])?;
    drop(onnx::read(&arguments.model).map_err(Failure::bad_input)?);
    let options = ModelOptions {
        input: arguments.input.clone(),
        output: arguments.output.clone(),
        input_shape: arguments.input_shape.as_ref().map(|shape| shape.0.clone()),
        normalization,
        keep: arguments.wrt.iter().cloned().collect(),
        integer_input,
        straight_through: arguments.straight_through,
        session: start(runtime)?,
    };
    let model = Model::open(&arguments.model, &options).map_err(|error| match error {
        // The runtime works: it is this model that it does not take.
        model::Error::Runtime(error @ runtime::Error::Load { .. }) => Failure::bad_input(
            anyhow::Error::new(error).context(format!("{}", arguments.model.display())),
        ),
        error => blame(error),
    })?;
    if model.straight_through() {
        tracing::info!(
            "gradients pass straight through rounding and quantisation; verdicts are those of the model as it is"
        );
    }
    for note in model.notes() {
        tracing::info!("{}: {note}", arguments.model.display());
    }
    Ok(model)
}

/// Whose fault an error of the model is.
pub(super) fn blame(error: model::Error) -> Failure {
    if error.is_runtime() {
        Failure::runtime(error)
    } else {
        Failure::bad_input(error)
    }
}
