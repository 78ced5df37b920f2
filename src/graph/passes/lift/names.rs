//! The names that a model uses, so that new ones keep clear of them.

use super::name_of;
use crate::onnx::proto::{GraphProto, ModelProto, NodeProto};
use std::collections::HashSet;

/// The names in a model, of values and nodes alike, at any depth.
pub(super) struct Names {
    pub(super) used: HashSet<String>,
    /// The values that a node or an output takes.
    pub(super) read: HashSet<String>,
}

impl Names {
    pub(super) fn of(model: &ModelProto) -> Self {
        let mut names = Names {
            used: HashSet::new(),
            read: HashSet::new(),
        };
        let training = model.training_info.iter();
        let training = training.flat_map(|info| info.initialization.iter().chain(&info.algorithm));
        for graph in model.graph.iter().chain(training) {
            names.add_graph(graph);
        }
        for function in &model.functions {
            names.used.extend(function.input.iter().cloned());
            names.read.extend(function.output.iter().cloned());
            names.add_nodes(&function.node);
        }
        names
    }

    fn add_graph(&mut self, graph: &GraphProto) {
        let infos = graph
            .input
            .iter()
            .chain(&graph.output)
            .chain(&graph.value_info);
        self.used.extend(infos.map(|info| name_of(info).to_owned()));
        let initializers = graph.initializer.iter();
        self.used
            .extend(initializers.filter_map(|tensor| tensor.name.clone()));
        self.read
            .extend(graph.output.iter().map(|info| name_of(info).to_owned()));
        self.add_nodes(&graph.node);
    }

    fn add_nodes(&mut self, nodes: &[NodeProto]) {
        for node in nodes {
            self.used.extend(
                node.name
                    .iter()
                    .chain(&node.output)
                    .chain(&node.input)
                    .cloned(),
            );
            self.read.extend(node.input.iter().cloned());
            for attribute in &node.attribute {
                for graph in attribute.g.iter().chain(&attribute.graphs) {
                    self.add_graph(graph);
                }
            }
        }
    }

    /// `base`, or `base` with a number: a name that nothing has yet.
    pub(super) fn fresh(&mut self, base: &str) -> String {
        let mut numbered = (1u64..).map(|number| format!("{base}_{number}"));
        let name = if self.used.contains(base) {
            numbered
                .find(|name| !self.used.contains(name))
                .unwrap_or_default()
        } else {
            base.to_owned()
        };
        self.used.insert(name.clone());
        name
    }
}
