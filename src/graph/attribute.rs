//! Typed access to the attributes of nodes.

use crate::onnx::proto::{AttributeProto, AttributeType, GraphProto, NodeProto, TensorProto};
use bytes::Bytes;

/// A value for an attribute of a new node.
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs, reason = "each variant is the attribute type it names")]
pub enum Attribute {
    Int(i64),
    Float(f32),
    String(&'static str),
    Ints(Vec<i64>),
    Tensor(Box<TensorProto>),
}

impl Attribute {
    /// The attribute as a file holds it.
    #[must_use]
    pub fn to_proto(&self, name: &str) -> AttributeProto {
        let mut proto = AttributeProto {
            name: Some(name.into()),
            ..AttributeProto::default()
        };
        let kind = match self {
            Attribute::Int(value) => {
                proto.i = Some(*value);
                AttributeType::Int
            }
            Attribute::Float(value) => {
                proto.f = Some(*value);
                AttributeType::Float
            }
            Attribute::String(value) => {
                proto.s = Some(Bytes::from_static(value.as_bytes()));
                AttributeType::String
            }
            Attribute::Ints(values) => {
                proto.ints.clone_from(values);
                AttributeType::Ints
            }
            Attribute::Tensor(tensor) => {
                proto.t = Some((**tensor).clone());
                AttributeType::Tensor
            }
        };
        proto.r#type = Some(kind as i32);
        proto
    }
}

/// Reading attributes by name, with the defaults that the operator's page gives.
pub trait Attributes {
    /// The attribute of that name.
    fn attribute(&self, name: &str) -> Option<&AttributeProto>;

    /// An integer.
    fn int(&self, name: &str) -> Option<i64> {
        self.attribute(name)?.i
    }

    /// A float.
    fn float(&self, name: &str) -> Option<f32> {
        self.attribute(name)?.f
    }

    /// A list of integers.
    fn ints(&self, name: &str) -> Option<&[i64]> {
        self.attribute(name)
            .map(|attribute| attribute.ints.as_slice())
    }

    /// A list of floats.
    fn floats(&self, name: &str) -> Option<&[f32]> {
        self.attribute(name)
            .map(|attribute| attribute.floats.as_slice())
    }

    /// A string.
    fn string(&self, name: &str) -> Option<&str> {
        std::str::from_utf8(self.attribute(name)?.s.as_ref()?).ok()
    }

    /// A tensor.
    fn tensor(&self, name: &str) -> Option<&TensorProto> {
        self.attribute(name)?.t.as_ref()
    }

    /// A graph.
    fn graph(&self, name: &str) -> Option<&GraphProto> {
        self.attribute(name)?.g.as_ref()
    }
}

impl Attributes for NodeProto {
    fn attribute(&self, name: &str) -> Option<&AttributeProto> {
        self.attribute
            .iter()
            .find(|attribute| attribute.name.as_deref() == Some(name))
    }
}
