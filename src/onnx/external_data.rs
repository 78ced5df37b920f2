//! Tensors whose elements lie in another file than the model.

use super::proto::{
    AttributeProto, DataLocation, GraphProto, NodeProto, StringStringEntryProto, TensorProto,
};
use super::{Error, ModelProto};
use bytes::Bytes;
use prost::Message;
use std::borrow::Cow;
use std::collections::HashMap;
use std::io::{self, Write};
use std::path::{Component, Path, PathBuf};

/// The number of bytes up to which a model is written as one file: a little less than the 2³¹ − 1 that a protobuf message can hold.
pub const WEIGHTS_IN_FILE: usize = 2_000_000_000;

/// Tensors of fewer bytes stay in the model itself.
const SMALL: usize = 1024;

/// Elements start at multiples of this, so that they can be mapped (as the format advises).
const ALIGNMENT: u64 = 4096;

/// Where a tensor's elements are, as its `external_data` entries say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExternalData {
    /// The file, relative to the model's folder.
    pub location: String,
    /// The first byte.
    pub offset: usize,
    /// The number of bytes; to the end of the file where it is not given.
    pub length: Option<usize>,
}

impl ExternalData {
    /// Reads the entries of a tensor; `None` where its elements are in the model itself.
    ///
    /// # Errors
    /// Where an entry is missing or is no number.
    pub fn of(tensor: &TensorProto) -> Result<Option<Self>, Error> {
        if tensor.data_location != Some(DataLocation::External as i32) {
            return Ok(None);
        }
        let entry = |key: &str| {
            let entry = tensor
                .external_data
                .iter()
                .find(|entry| entry.key.as_deref() == Some(key));
            entry.and_then(|entry| entry.value.as_deref())
        };
        let name = || tensor.name.clone().unwrap_or_default();
        let location = entry("location").unwrap_or_default().to_owned();
        let number = |key: &str| {
            entry(key)
                .map(|text| {
                    text.parse().map_err(|_| Error::ExternalData {
                        name: name(),
                        file: location.clone(),
                        reason: format!("its {key} `{text}` is no number of bytes"),
                    })
                })
                .transpose()
        };
        let (offset, length) = (number("offset")?.unwrap_or(0), number("length")?);
        Ok(Some(ExternalData {
            location,
            offset,
            length,
        }))
    }
}

/// Maps the files that the model's tensors name and puts their elements into `raw_data`.
pub(super) fn attach(model: &mut ModelProto, folder: &Path) -> Result<(), Error> {
    let mut files: HashMap<PathBuf, Bytes> = HashMap::new();
    each_tensor(model, &mut |tensor| {
        let Some(place) = ExternalData::of(tensor)? else {
            return Ok(());
        };
        let fail = |reason: String| Error::ExternalData {
            name: tensor.name.clone().unwrap_or_default(),
            file: place.location.clone(),
            reason,
        };
        let relative = Path::new(&place.location);
        let inside = relative
            .components()
            .all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
        if place.location.is_empty() || !inside {
            return Err(fail("only files in the model's own folder are read".into()));
        }
        let path = folder.join(relative);
        let file = if let Some(file) = files.get(&path) {
            file.clone()
        } else {
            let file = super::map(&path).map_err(|error| {
                fail(format!(
                    "{} cannot be read ({error}); keep it beside the model",
                    path.display()
                ))
            })?;
            files.insert(path, file.clone());
            file
        };
        let end = place
            .length
            .map_or(Some(file.len()), |length| place.offset.checked_add(length));
        let range = end
            .filter(|&end| end <= file.len() && place.offset <= end)
            .map(|end| place.offset..end);
        let range = range.ok_or_else(|| {
            fail(format!(
                "it ends at byte {}, before the tensor's elements do; the file is truncated",
                file.len()
            ))
        })?;
        tensor.raw_data = Some(file.slice(range));
        Ok(())
    })
}

/// The model with the elements that were read from other files inside, and no word of those files.
pub(super) fn inlined(model: &ModelProto) -> Cow<'_, ModelProto> {
    let in_functions = || {
        let mut functions = model.functions.iter();
        functions.any(|function| nodes_have_external(&function.node))
    };
    if !model.graph.as_ref().is_some_and(graph_has_external) && !in_functions() {
        return Cow::Borrowed(model);
    }
    let mut inlined = model.clone();
    let mut changed = false;
    let result = each_tensor(&mut inlined, &mut |tensor| {
        if tensor.raw_data.is_some() && tensor.data_location.is_some() {
            changed |= !tensor.external_data.is_empty();
            tensor.data_location = tensor
                .data_location
                .filter(|_| tensor.external_data.is_empty());
            tensor.external_data.clear();
        }
        Ok(())
    });
    match result {
        Ok(()) if changed => Cow::Owned(inlined),
        _ => Cow::Borrowed(model),
    }
}

/// Whether a tensor of the nodes or of their subgraphs was read from another file.
fn nodes_have_external(nodes: &[NodeProto]) -> bool {
    let is_external = |tensor: &TensorProto| !tensor.external_data.is_empty();
    let in_attribute = |attribute: &AttributeProto| {
        attribute.t.as_ref().is_some_and(is_external)
            || attribute.tensors.iter().any(is_external)
            || attribute.g.as_ref().is_some_and(graph_has_external)
            || attribute.graphs.iter().any(graph_has_external)
    };
    let mut attributes = nodes.iter().flat_map(|node| &node.attribute);
    attributes.any(in_attribute)
}

fn graph_has_external(graph: &GraphProto) -> bool {
    let is_external = |tensor: &TensorProto| !tensor.external_data.is_empty();
    graph.initializer.iter().any(is_external) || nodes_have_external(&graph.node)
}

/// Whether the model's elements have to go to a file of their own: because they came from one, or for their size.
pub(super) fn wanted(model: &ModelProto) -> bool {
    let initializers = || model.graph.iter().flat_map(|graph| &graph.initializer);
    initializers().any(|tensor| tensor.data_location == Some(DataLocation::External as i32))
        || initializers()
            .map(|tensor| tensor.raw_data.as_ref().map_or(0, Bytes::len))
            .sum::<usize>()
            > WEIGHTS_IN_FILE
        || model.encoded_len() > WEIGHTS_IN_FILE
}

/// Writes the elements of every large initializer to `<path>.data` and returns the model that refers to them.
pub(super) fn detach(model: &ModelProto, path: &Path) -> Result<ModelProto, Error> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".data");
    let target = path.with_file_name(&name);
    let error = |source: io::Error| Error::Write {
        path: target.clone(),
        source,
    };
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let mut file = io::BufWriter::new(tempfile::NamedTempFile::new_in(folder).map_err(error)?);
    let mut position = 0u64;
    let mut model = model.clone();
    each_tensor(&mut model, &mut |tensor| {
        let external = tensor.data_location == Some(DataLocation::External as i32);
        let Some(data) = tensor
            .raw_data
            .take_if(|data| external || data.len() >= SMALL)
        else {
            return Ok(());
        };
        let start = position.next_multiple_of(ALIGNMENT);
        io::copy(
            &mut io::Read::take(io::repeat(0), start - position),
            &mut file,
        )
        .map_err(error)?;
        file.write_all(&data).map_err(error)?;
        position = start + data.len() as u64;
        let entry = |key: &str, value: String| StringStringEntryProto {
            key: Some(key.into()),
            value: Some(value),
        };
        tensor.data_location = Some(DataLocation::External as i32);
        tensor.external_data = vec![
            entry("location", name.to_string_lossy().into_owned()),
            entry("offset", start.to_string()),
            entry("length", data.len().to_string()),
        ];
        Ok(())
    })?;
    let file = file
        .into_inner()
        .map_err(|failed| error(failed.into_error()))?;
    set_permissions(&file).map_err(error)?;
    file.persist(&target)
        .map_err(|failed| error(failed.error))?;
    Ok(model)
}

/// Gives a temporary file the permissions of any other new file.
pub(super) fn set_permissions(file: &tempfile::NamedTempFile) -> io::Result<()> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        file.as_file()
            .set_permissions(std::fs::Permissions::from_mode(0o644))?;
    }
    let _ = file;
    Ok(())
}

type Visit<'a> = dyn FnMut(&mut TensorProto) -> Result<(), Error> + 'a;

/// Calls `visit` for every initializer and every tensor in an attribute, in subgraphs and functions too.
fn each_tensor(model: &mut ModelProto, visit: &mut Visit<'_>) -> Result<(), Error> {
    if let Some(graph) = &mut model.graph {
        graph_tensors(graph, visit)?;
    }
    let nodes = model
        .functions
        .iter_mut()
        .flat_map(|function| &mut function.node);
    nodes
        .flat_map(|node| &mut node.attribute)
        .try_for_each(|attribute| attribute_tensors(attribute, visit))
}

fn graph_tensors(graph: &mut GraphProto, visit: &mut Visit<'_>) -> Result<(), Error> {
    graph.initializer.iter_mut().try_for_each(&mut *visit)?;
    let attributes = graph.node.iter_mut().flat_map(|node| &mut node.attribute);
    attributes
        .into_iter()
        .try_for_each(|attribute| attribute_tensors(attribute, visit))
}

fn attribute_tensors(attribute: &mut AttributeProto, visit: &mut Visit<'_>) -> Result<(), Error> {
    attribute
        .t
        .iter_mut()
        .chain(&mut attribute.tensors)
        .try_for_each(&mut *visit)?;
    attribute
        .g
        .iter_mut()
        .chain(&mut attribute.graphs)
        .try_for_each(|graph| graph_tensors(graph, visit))
}
