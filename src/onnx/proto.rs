//! The messages of an ONNX file (`onnx.proto`, IR version 14), field by field.
//!
//! Every field of the format is here, so that reading and writing a file again loses nothing.
//! Optional fields keep their presence, and bytes share the buffer they were read from.

use bytes::Bytes;
use prost::{Enumeration, Message, Oneof};

macro_rules! messages {
    ($($(#[$doc:meta])* $name:ident { $($(#[$attribute:meta])* $field:ident: $type:ty,)* })*) => {$(
        $(#[$doc])*
        #[derive(Clone, PartialEq, Message)]
        pub struct $name {
            $(
                $(#[$attribute])*
                #[doc = concat!("`", stringify!($field), "` of the ONNX format.")]
                pub $field: $type,
            )*
        }
    )*};
}

messages! {
    /// A whole model.
    ModelProto {
        #[prost(int64, optional, tag = "1")] ir_version: Option<i64>,
        #[prost(string, optional, tag = "2")] producer_name: Option<String>,
        #[prost(string, optional, tag = "3")] producer_version: Option<String>,
        #[prost(string, optional, tag = "4")] domain: Option<String>,
        #[prost(int64, optional, tag = "5")] model_version: Option<i64>,
        #[prost(string, optional, tag = "6")] doc_string: Option<String>,
        #[prost(message, optional, tag = "7")] graph: Option<GraphProto>,
        #[prost(message, repeated, tag = "8")] opset_import: Vec<OperatorSetIdProto>,
        #[prost(message, repeated, tag = "14")] metadata_props: Vec<StringStringEntryProto>,
        #[prost(message, repeated, tag = "20")] training_info: Vec<TrainingInfoProto>,
        #[prost(message, repeated, tag = "25")] functions: Vec<FunctionProto>,
        #[prost(message, repeated, tag = "26")] configuration: Vec<DeviceConfigurationProto>,
    }

    /// A graph: nodes in topological order, initializers, inputs and outputs.
    GraphProto {
        #[prost(message, repeated, tag = "1")] node: Vec<NodeProto>,
        #[prost(string, optional, tag = "2")] name: Option<String>,
        #[prost(message, repeated, tag = "5")] initializer: Vec<TensorProto>,
        #[prost(string, optional, tag = "10")] doc_string: Option<String>,
        #[prost(message, repeated, tag = "11")] input: Vec<ValueInfoProto>,
        #[prost(message, repeated, tag = "12")] output: Vec<ValueInfoProto>,
        #[prost(message, repeated, tag = "13")] value_info: Vec<ValueInfoProto>,
        #[prost(message, repeated, tag = "14")] quantization_annotation: Vec<TensorAnnotation>,
        #[prost(message, repeated, tag = "15")] sparse_initializer: Vec<SparseTensorProto>,
        #[prost(message, repeated, tag = "16")] metadata_props: Vec<StringStringEntryProto>,
    }

    /// An application of an operator.
    NodeProto {
        #[prost(string, repeated, tag = "1")] input: Vec<String>,
        #[prost(string, repeated, tag = "2")] output: Vec<String>,
        #[prost(string, optional, tag = "3")] name: Option<String>,
        #[prost(string, optional, tag = "4")] op_type: Option<String>,
        #[prost(message, repeated, tag = "5")] attribute: Vec<AttributeProto>,
        #[prost(string, optional, tag = "6")] doc_string: Option<String>,
        #[prost(string, optional, tag = "7")] domain: Option<String>,
        #[prost(string, optional, tag = "8")] overload: Option<String>,
        #[prost(message, repeated, tag = "9")] metadata_props: Vec<StringStringEntryProto>,
        #[prost(message, repeated, tag = "10")] device_configurations: Vec<NodeDeviceConfigurationProto>,
    }

    /// A named attribute of a node.
    AttributeProto {
        #[prost(string, optional, tag = "1")] name: Option<String>,
        #[prost(float, optional, tag = "2")] f: Option<f32>,
        #[prost(int64, optional, tag = "3")] i: Option<i64>,
        #[prost(bytes = "bytes", optional, tag = "4")] s: Option<Bytes>,
        #[prost(message, optional, tag = "5")] t: Option<TensorProto>,
        #[prost(message, optional, tag = "6")] g: Option<GraphProto>,
        #[prost(float, repeated, packed = "false", tag = "7")] floats: Vec<f32>,
        #[prost(int64, repeated, packed = "false", tag = "8")] ints: Vec<i64>,
        #[prost(bytes = "bytes", repeated, tag = "9")] strings: Vec<Bytes>,
        #[prost(message, repeated, tag = "10")] tensors: Vec<TensorProto>,
        #[prost(message, repeated, tag = "11")] graphs: Vec<GraphProto>,
        #[prost(string, optional, tag = "13")] doc_string: Option<String>,
        #[prost(message, optional, tag = "14")] tp: Option<TypeProto>,
        #[prost(message, repeated, tag = "15")] type_protos: Vec<TypeProto>,
        #[prost(enumeration = "AttributeType", optional, tag = "20")] r#type: Option<i32>,
        #[prost(string, optional, tag = "21")] ref_attr_name: Option<String>,
        #[prost(message, optional, tag = "22")] sparse_tensor: Option<SparseTensorProto>,
        #[prost(message, repeated, tag = "23")] sparse_tensors: Vec<SparseTensorProto>,
    }

    /// The name and type of a value.
    ValueInfoProto {
        #[prost(string, optional, tag = "1")] name: Option<String>,
        #[prost(message, optional, tag = "2")] r#type: Option<TypeProto>,
        #[prost(string, optional, tag = "3")] doc_string: Option<String>,
        #[prost(message, repeated, tag = "4")] metadata_props: Vec<StringStringEntryProto>,
    }

    /// A tensor with its elements, here or in another file.
    TensorProto {
        #[prost(int64, repeated, packed = "false", tag = "1")] dims: Vec<i64>,
        #[prost(int32, optional, tag = "2")] data_type: Option<i32>,
        #[prost(message, optional, tag = "3")] segment: Option<Segment>,
        #[prost(float, repeated, tag = "4")] float_data: Vec<f32>,
        #[prost(int32, repeated, tag = "5")] int32_data: Vec<i32>,
        #[prost(bytes = "bytes", repeated, tag = "6")] string_data: Vec<Bytes>,
        #[prost(int64, repeated, tag = "7")] int64_data: Vec<i64>,
        #[prost(string, optional, tag = "8")] name: Option<String>,
        #[prost(bytes = "bytes", optional, tag = "9")] raw_data: Option<Bytes>,
        #[prost(double, repeated, tag = "10")] double_data: Vec<f64>,
        #[prost(uint64, repeated, tag = "11")] uint64_data: Vec<u64>,
        #[prost(string, optional, tag = "12")] doc_string: Option<String>,
        #[prost(message, repeated, tag = "13")] external_data: Vec<StringStringEntryProto>,
        #[prost(enumeration = "DataLocation", optional, tag = "14")] data_location: Option<i32>,
        #[prost(message, repeated, tag = "16")] metadata_props: Vec<StringStringEntryProto>,
    }

    /// A part of a tensor that is stored in pieces.
    Segment {
        #[prost(int64, optional, tag = "1")] begin: Option<i64>,
        #[prost(int64, optional, tag = "2")] end: Option<i64>,
    }

    /// A sparse tensor.
    SparseTensorProto {
        #[prost(message, optional, tag = "1")] values: Option<TensorProto>,
        #[prost(message, optional, tag = "2")] indices: Option<TensorProto>,
        #[prost(int64, repeated, packed = "false", tag = "3")] dims: Vec<i64>,
    }

    /// The shape of a tensor, possibly with named or unknown extents.
    TensorShapeProto {
        #[prost(message, repeated, tag = "1")] dim: Vec<Dimension>,
    }

    /// The extent of one axis.
    Dimension {
        #[prost(oneof = "DimensionValue", tags = "1, 2")] value: Option<DimensionValue>,
        #[prost(string, optional, tag = "3")] denotation: Option<String>,
    }

    /// The type of a value.
    TypeProto {
        #[prost(oneof = "TypeValue", tags = "1, 4, 5, 7, 8, 9")] value: Option<TypeValue>,
        #[prost(string, optional, tag = "6")] denotation: Option<String>,
    }

    /// A tensor type; also that of sparse tensors.
    TensorType {
        #[prost(int32, optional, tag = "1")] elem_type: Option<i32>,
        #[prost(message, optional, tag = "2")] shape: Option<TensorShapeProto>,
    }

    /// A sequence or optional type.
    ElementType {
        #[prost(message, optional, boxed, tag = "1")] elem_type: Option<Box<TypeProto>>,
    }

    /// A map type.
    MapType {
        #[prost(int32, optional, tag = "1")] key_type: Option<i32>,
        #[prost(message, optional, boxed, tag = "2")] value_type: Option<Box<TypeProto>>,
    }

    /// A type that only its own domain knows.
    OpaqueType {
        #[prost(string, optional, tag = "1")] domain: Option<String>,
        #[prost(string, optional, tag = "2")] name: Option<String>,
    }

    /// The version of an operator set.
    OperatorSetIdProto {
        #[prost(string, optional, tag = "1")] domain: Option<String>,
        #[prost(int64, optional, tag = "2")] version: Option<i64>,
    }

    /// A model-local function.
    FunctionProto {
        #[prost(string, optional, tag = "1")] name: Option<String>,
        #[prost(string, repeated, tag = "4")] input: Vec<String>,
        #[prost(string, repeated, tag = "5")] output: Vec<String>,
        #[prost(string, repeated, tag = "6")] attribute: Vec<String>,
        #[prost(message, repeated, tag = "7")] node: Vec<NodeProto>,
        #[prost(string, optional, tag = "8")] doc_string: Option<String>,
        #[prost(message, repeated, tag = "9")] opset_import: Vec<OperatorSetIdProto>,
        #[prost(string, optional, tag = "10")] domain: Option<String>,
        #[prost(message, repeated, tag = "11")] attribute_proto: Vec<AttributeProto>,
        #[prost(message, repeated, tag = "12")] value_info: Vec<ValueInfoProto>,
        #[prost(string, optional, tag = "13")] overload: Option<String>,
        #[prost(message, repeated, tag = "14")] metadata_props: Vec<StringStringEntryProto>,
    }

    /// A key and a value.
    StringStringEntryProto {
        #[prost(string, optional, tag = "1")] key: Option<String>,
        #[prost(string, optional, tag = "2")] value: Option<String>,
    }

    /// Quantization parameters of a tensor.
    TensorAnnotation {
        #[prost(string, optional, tag = "1")] tensor_name: Option<String>,
        #[prost(message, repeated, tag = "2")] quant_parameter_tensor_names: Vec<StringStringEntryProto>,
    }

    /// Training information.
    TrainingInfoProto {
        #[prost(message, optional, tag = "1")] initialization: Option<GraphProto>,
        #[prost(message, optional, tag = "2")] algorithm: Option<GraphProto>,
        #[prost(message, repeated, tag = "3")] initialization_binding: Vec<StringStringEntryProto>,
        #[prost(message, repeated, tag = "4")] update_binding: Vec<StringStringEntryProto>,
    }

    /// A configuration of several devices.
    DeviceConfigurationProto {
        #[prost(string, optional, tag = "1")] name: Option<String>,
        #[prost(int32, optional, tag = "2")] num_devices: Option<i32>,
        #[prost(string, repeated, tag = "3")] device: Vec<String>,
    }

    /// A node's place in a configuration of several devices.
    NodeDeviceConfigurationProto {
        #[prost(string, optional, tag = "1")] configuration_id: Option<String>,
        #[prost(message, repeated, tag = "2")] sharding_spec: Vec<ShardingSpecProto>,
        #[prost(int32, optional, tag = "3")] pipeline_stage: Option<i32>,
    }

    /// How a tensor is divided among devices.
    ShardingSpecProto {
        #[prost(string, optional, tag = "1")] tensor_name: Option<String>,
        #[prost(int64, repeated, packed = "false", tag = "2")] device: Vec<i64>,
        #[prost(message, repeated, tag = "3")] index_to_device_group_map: Vec<IntIntListEntryProto>,
        #[prost(message, repeated, tag = "4")] sharded_dim: Vec<ShardedDimProto>,
    }

    /// A number and a list of numbers.
    IntIntListEntryProto {
        #[prost(int64, optional, tag = "1")] key: Option<i64>,
        #[prost(int64, repeated, packed = "false", tag = "2")] value: Vec<i64>,
    }

    /// How one axis is divided.
    ShardedDimProto {
        #[prost(int64, optional, tag = "1")] axis: Option<i64>,
        #[prost(message, repeated, tag = "2")] simple_sharding: Vec<SimpleShardedDimProto>,
    }

    /// How a part of an axis is divided.
    SimpleShardedDimProto {
        #[prost(oneof = "DimensionValue", tags = "1, 2")] dim: Option<DimensionValue>,
        #[prost(int64, optional, tag = "3")] num_shards: Option<i64>,
    }
}

/// An extent: a number or a name.
#[derive(Clone, PartialEq, Eq, Oneof)]
pub enum DimensionValue {
    /// A fixed extent.
    #[prost(int64, tag = "1")]
    DimValue(i64),
    /// A named extent.
    #[prost(string, tag = "2")]
    DimParam(String),
}

/// The kinds of types.
#[derive(Clone, PartialEq, Oneof)]
pub enum TypeValue {
    /// A dense tensor.
    #[prost(message, tag = "1")]
    TensorType(TensorType),
    /// A sequence.
    #[prost(message, tag = "4")]
    SequenceType(ElementType),
    /// A map.
    #[prost(message, tag = "5")]
    MapType(MapType),
    /// An opaque type.
    #[prost(message, tag = "7")]
    OpaqueType(OpaqueType),
    /// A sparse tensor.
    #[prost(message, tag = "8")]
    SparseTensorType(TensorType),
    /// A value that may be absent.
    #[prost(message, tag = "9")]
    OptionalType(ElementType),
}

/// The kind of an attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Enumeration)]
#[repr(i32)]
#[expect(missing_docs, reason = "the names of the format")]
pub enum AttributeType {
    Undefined = 0,
    Float = 1,
    Int = 2,
    String = 3,
    Tensor = 4,
    Graph = 5,
    Floats = 6,
    Ints = 7,
    Strings = 8,
    Tensors = 9,
    Graphs = 10,
    SparseTensor = 11,
    SparseTensors = 12,
    TypeProto = 13,
    TypeProtos = 14,
}

/// Where a tensor's elements are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Enumeration)]
#[repr(i32)]
pub enum DataLocation {
    /// In the message itself.
    Default = 0,
    /// In another file.
    External = 1,
}
