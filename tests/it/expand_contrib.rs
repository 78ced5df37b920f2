//! Fused operators against what they are taken apart into: ONNX Runtime computes the same from both, and the gradient is that of the result.

use crate::gradcheck::{Case, Input, N, between, run, varied};
use mohs::graph::Graph;
use mohs::graph::passes::{expand_contrib, has_fused};
use mohs::model::trace::{BATCHES, trace};
use mohs::onnx::proto::NodeProto;
use mohs::runtime::{SessionOptions, Value};
use mohs::tensor::Tensor;

fn contrib(op_type: &'static str, inputs: Vec<Input>) -> Case {
    let case = Case::new(op_type, inputs).single();
    Case {
        domain: "com.microsoft",
        ..case
    }
}

/// The case's graph taken apart, with a sentence on each node that was left.
fn expanded(case: &Case) -> (Graph, Vec<String>) {
    crate::runtime_ready();
    let mut graph = Graph::from_model(case.model());
    assert!(has_fused(&graph), "{case:?} has nothing to take apart");
    let feed = |batch: usize| {
        let feeds = case.feeds(batch).into_iter();
        Ok(feeds
            .map(|(name, tensor)| (name, Value::from_tensor(tensor).unwrap()))
            .collect())
    };
    let batches = if case.is_batched() {
        &BATCHES[..]
    } else {
        &BATCHES[..1]
    };
    trace(&mut graph, &feed, batches, &SessionOptions::default()).unwrap();
    expand_contrib(graph)
}

/// Asserts that both forms give the same results, and that the gradient of the second is that of the first (which needs a smooth operator:
/// in single precision differences reach across kinks).
fn same(case: &Case) {
    same_results(case);
    case.check();
}

/// Asserts that both forms give the same results, at another batch size than the graph was traced with.
fn same_results(case: &Case) {
    let (graph, left) = expanded(case);
    assert!(left.is_empty(), "{left:?}");
    let domain = |node: &NodeProto| node.domain.clone().unwrap_or_default();
    let model = graph.to_model();
    let nodes = &model.graph.as_ref().unwrap().node;
    assert!(nodes.iter().all(|node| domain(node).is_empty()), "{case:?}");
    assert!(!has_fused(&graph), "{case:?}");
    let feeds = case.feeds(4);
    let (before, after) = (run(&case.model(), &feeds), run(&model, &feeds));
    assert_eq!(before.len(), after.len());
    for ((name, before), (_, after)) in before.iter().zip(&after) {
        assert_eq!(before.dtype(), after.dtype(), "{case:?}: {name}");
        assert_eq!(before.shape(), after.shape(), "{case:?}: {name}");
        let pairs = before.to_f64().into_iter().zip(after.to_f64());
        for (position, (before, after)) in pairs.enumerate() {
            let allowed = 3e-6 * (1.0 + before.abs());
            assert!(
                (before - after).abs() <= allowed,
                "{case:?}\n{name}[{position}]: {before} became {after}"
            );
        }
    }
}

fn integers(shape: &[usize], values: &[i32]) -> Input {
    Input::Constant(Tensor::new(shape, values.to_vec()).unwrap())
}

fn longs(shape: &[usize], values: &[i64]) -> Input {
    Input::Constant(Tensor::new(shape, values.to_vec()).unwrap())
}

fn floats(shape: &[usize], of: impl Fn(usize) -> f32) -> Input {
    let count = shape.iter().product();
    Input::Constant(Tensor::new(shape, (0..count).map(of).collect()).unwrap())
}

fn caches(rows: usize, half: usize) -> [Input; 2] {
    let angle = |at: usize| (at / half) as f32 * 0.9f32.powi((at % half) as i32);
    [
        floats(&[rows, half], |at| angle(at).cos()),
        floats(&[rows, half], |at| angle(at).sin()),
    ]
}

#[test]
fn forms_of_gelu() {
    let x = || between(&[N, 3, 5], -4.0, 4.0);
    same(&contrib("Gelu", vec![x()]));
    same(&contrib("QuickGelu", vec![x()]));
    same(&contrib("QuickGelu", vec![x()]).float("alpha", 0.7));
    same(&contrib("FastGelu", vec![x()]));
    same(&contrib("FastGelu", vec![x(), varied(&[5])]));
    same(&contrib("BiasGelu", vec![x(), varied(&[5])]));
}

#[test]
fn products_with_everything_fused_into_them() {
    for (trans_a, trans_b, alpha) in [(0, 0, 1.0), (1, 0, 0.5), (0, 1, 2.0), (1, 1, 1.0)] {
        let a: &[usize] = if trans_a == 1 {
            &[N, 2, 4, 3]
        } else {
            &[N, 2, 3, 4]
        };
        let b: &[usize] = if trans_b == 1 {
            &[N, 2, 5, 4]
        } else {
            &[N, 2, 4, 5]
        };
        for op_type in ["FusedMatMul", "TransposeMatMul"] {
            same(
                &contrib(op_type, vec![varied(a), varied(b)])
                    .int("transA", trans_a)
                    .int("transB", trans_b)
                    .float("alpha", alpha),
            );
        }
    }
    let rows_in_front = contrib(
        "FusedMatMul",
        vec![varied(&[3, 2, 6, 4]), varied(&[2, 6, 4, 5])],
    );
    same(&rows_in_front.int("transBatchA", 1));
    let both = contrib(
        "FusedMatMul",
        vec![varied(&[4, 2, 6, 3]), varied(&[5, 2, 6, 4])],
    );
    same(
        &both
            .int("transBatchA", 1)
            .int("transA", 1)
            .int("transBatchB", 1)
            .int("transB", 1),
    );
    for (activation, parameter) in [("Relu", None), ("LeakyRelu", Some(0.3)), ("Tanh", None)] {
        let inputs = vec![varied(&[N, 3]), varied(&[4, 3]), varied(&[4])];
        let case = contrib("FusedGemm", inputs)
            .int("transB", 1)
            .float("beta", 0.5);
        let case = case.string("activation", activation);
        same_results(&match parameter {
            Some(alpha) => case.float("activation_alpha", alpha),
            None => case,
        });
    }
}

#[test]
fn convolutions_with_an_activation_and_a_sum() {
    let floats = |values: &[f32]| mohs::onnx::proto::AttributeProto {
        name: Some("activation_params".into()),
        floats: values.to_vec(),
        r#type: Some(mohs::onnx::proto::AttributeType::Floats as i32),
        ..Default::default()
    };
    for (activation, parameters) in [
        ("Relu", &[][..]),
        ("Sigmoid", &[]),
        ("LeakyRelu", &[0.2]),
        ("Clip", &[-0.5, 0.4]),
        ("HardSigmoid", &[0.3, 0.4]),
    ] {
        let inputs = vec![varied(&[N, 2, 5, 4]), varied(&[3, 2, 3, 2]), varied(&[3])];
        let mut case = contrib("FusedConv", inputs).ints("pads", &[1, 0, 1, 1]);
        case = case
            .ints("strides", &[2, 1])
            .string("activation", activation);
        if !parameters.is_empty() {
            case.attributes.push(floats(parameters));
        }
        same_results(&case);
        if activation == "Sigmoid" {
            case.check();
        }
    }
    let inputs = vec![
        varied(&[N, 2, 4, 4]),
        varied(&[3, 2, 3, 3]),
        varied(&[3]),
        varied(&[N, 3, 2, 2]),
    ];
    same_results(&contrib("FusedConv", inputs).string("activation", "Relu"));
}

#[test]
fn normalisations_of_sums() {
    let x = || varied(&[N, 3, 8]);
    let scale = || between(&[8], 0.5, 1.5);
    let all = vec![x(), x(), scale(), varied(&[8]), varied(&[8])];
    same(&contrib("SkipLayerNormalization", all[..3].to_vec()).float("epsilon", 1e-3));
    same(&contrib("SkipLayerNormalization", all[..4].to_vec()));
    same(&contrib("SkipLayerNormalization", all));
    same(&contrib(
        "SkipSimplifiedLayerNormalization",
        vec![x(), x(), scale()],
    ));
    let with_bias = vec![x(), varied(&[3, 8]), scale(), varied(&[8])];
    same(&contrib("SkipSimplifiedLayerNormalization", with_bias).float("epsilon", 1e-2));
    let simplified = Case::new("SimplifiedLayerNormalization", vec![x(), scale()]).single();
    same(&simplified.clone().float("epsilon", 1e-2));
    let over_two = Case::new("SimplifiedLayerNormalization", vec![x(), varied(&[3, 8])]);
    same(&over_two.single().int("axis", 1));
}

#[test]
fn embeddings_of_words_places_and_segments() {
    let ids = || integers(&[2, 3], &[0, 4, 2, 1, 1, 3]);
    let tables = || [varied(&[5, 4]), varied(&[3, 4])];
    let scales = || [between(&[4], 0.5, 1.5), varied(&[4])];
    let [words, places] = tables();
    let [scale, bias] = scales();
    let whole = vec![
        ids(),
        integers(&[2, 3], &[0, 1, 1, 0, 0, 1]),
        words.clone(),
        places.clone(),
        varied(&[2, 4]),
        scale.clone(),
        bias.clone(),
        integers(&[2, 3], &[1, 1, 0, 1, 1, 1]),
    ];
    same(&contrib("EmbedLayerNormalization", whole).outputs(2));
    let bare = vec![
        ids(),
        Input::Absent,
        words,
        places,
        Input::Absent,
        scale,
        bias,
    ];
    same(&contrib("EmbedLayerNormalization", bare).outputs(2));
}

#[test]
fn rotary_embeddings_in_both_layouts() {
    for interleaved in [0, 1] {
        let [cosine, sine] = caches(8, 3);
        for positions in [longs(&[1], &[2]), longs(&[2, 4], &[0, 1, 2, 3, 4, 3, 2, 1])] {
            let inputs = vec![
                varied(&[2, 4, 12]),
                positions.clone(),
                cosine.clone(),
                sine.clone(),
            ];
            same(&contrib("RotaryEmbedding", inputs).int("interleaved", interleaved));
            let inputs = vec![
                varied(&[2, 2, 4, 6]),
                positions,
                cosine.clone(),
                sine.clone(),
            ];
            same(&contrib("RotaryEmbedding", inputs).int("interleaved", interleaved));
        }
        let [cosine, sine] = caches(8, 2);
        let inputs = vec![varied(&[N, 4, 12]), longs(&[1], &[0]), cosine, sine];
        same(
            &contrib("RotaryEmbedding", inputs)
                .int("interleaved", interleaved)
                .int("rotary_embedding_dim", 4)
                .int("num_heads", 2),
        );
    }
}

#[test]
fn attention_with_its_projections() {
    // Without a bias ONNX Runtime ends with a memory fault, so there is nothing to compare with.
    let inputs = || vec![varied(&[N, 4, 6]), varied(&[6, 24]), varied(&[24])];
    let case = |inputs| contrib("Attention", inputs).int("num_heads", 2);
    same(&case(inputs()));
    same(&case(inputs()).int("unidirectional", 1).float("scale", 0.3));
    let two = |mask: Input| vec![varied(&[2, 4, 6]), varied(&[6, 24]), varied(&[24]), mask];
    same(&case(two(integers(&[2], &[3, 4]))));
    same(&case(two(integers(&[2, 4], &[1, 1, 0, 1, 1, 1, 1, 0]))));
    let ones = vec![1, 0, 1, 1, 1, 1, 1, 0, 1, 1, 0, 0, 1, 1, 1, 1];
    same(&case(two(integers(
        &[2, 4, 4],
        &[&ones[..], &ones].concat(),
    ))));
    let biased = [
        two(Input::Absent),
        vec![Input::Absent, varied(&[1, 2, 4, 4])],
    ]
    .concat();
    same(&case(biased));
}

#[test]
fn multi_head_attention_in_every_layout() {
    let case = |inputs| contrib("MultiHeadAttention", inputs).int("num_heads", 2);
    let apart = || vec![varied(&[N, 3, 8]), varied(&[N, 5, 8]), varied(&[N, 5, 8])];
    same(&case(apart()));
    same(&case(apart()).outputs(3));
    same(&case([apart(), vec![varied(&[24])]].concat()).float("scale", 0.2));
    let cross = vec![
        varied(&[N, 3, 8]),
        varied(&[N, 2, 5, 4]),
        varied(&[N, 2, 5, 4]),
    ];
    same(&case(cross));
    let own = vec![varied(&[N, 4, 8]), varied(&[N, 4, 8]), varied(&[N, 4, 8])];
    same(&case(own).int("unidirectional", 1));
    let two = || {
        vec![
            varied(&[2, 3, 8]),
            varied(&[2, 4, 8]),
            varied(&[2, 4, 8]),
            Input::Absent,
        ]
    };
    let mask = integers(&[2, 4], &[1, 1, 0, 1, 1, 1, 1, 0]);
    same(&case([two(), vec![mask]].concat()));
    same(&case([two(), vec![integers(&[2], &[3, 4])]].concat()));
    same(&case(
        [two(), vec![Input::Absent, varied(&[2, 2, 3, 4])]].concat(),
    ));
}

#[test]
fn grouped_attention_over_a_prompt() {
    let lengths = || [integers(&[2], &[3, 3]), integers(&[1], &[4])];
    let case = |inputs| {
        contrib("GroupQueryAttention", inputs)
            .int("num_heads", 4)
            .int("kv_num_heads", 2)
            .outputs(3)
    };
    let apart = || {
        vec![
            varied(&[2, 4, 64]),
            varied(&[2, 4, 32]),
            varied(&[2, 4, 32]),
        ]
    };
    let none = || vec![Input::Absent, Input::Absent];
    let inputs = || [apart(), none(), lengths().to_vec()].concat();
    same(&case(inputs()));
    same(&case(inputs()).float("scale", 0.4).float("softcap", 2.0));
    same(&case(inputs()).int("local_window_size", 2));
    for interleaved in [0, 1] {
        let rotary = [inputs(), caches(6, 8).to_vec()].concat();
        same(
            &case(rotary)
                .int("do_rotary", 1)
                .int("rotary_interleaved", interleaved),
        );
    }
    let packed = vec![varied(&[2, 4, 128]), Input::Absent, Input::Absent];
    same(&case([packed, none(), lengths().to_vec()].concat()));
}

#[test]
fn attention_of_the_standard_domain() {
    for opset in [23, 24] {
        let case = |inputs| Case::new("Attention", inputs).single().opset(opset);
        let apart = || {
            vec![
                varied(&[N, 4, 3, 6]),
                varied(&[N, 2, 5, 6]),
                varied(&[N, 2, 5, 4]),
            ]
        };
        same(&case(apart()));
        same(&case(apart()).float("scale", 0.3).float("softcap", 1.5));
        let square = || {
            vec![
                varied(&[N, 2, 4, 6]),
                varied(&[N, 2, 4, 6]),
                varied(&[N, 2, 4, 6]),
            ]
        };
        same(&case(square()).int("is_causal", 1));
        let merged = vec![varied(&[N, 3, 24]), varied(&[N, 5, 12]), varied(&[N, 5, 8])];
        same(&case(merged).int("q_num_heads", 4).int("kv_num_heads", 2));
        same(&case([apart(), vec![varied(&[3, 5])]].concat()));
        same(&case([apart(), vec![varied(&[3, 5])]].concat()).float("softcap", 0.8));
        let places = Tensor::new(
            &[3, 5],
            (0..15).map(|at| at % 4 != 1).collect::<Vec<bool>>(),
        );
        same(&case(
            [apart(), vec![Input::Constant(places.unwrap())]].concat(),
        ));
        let past = vec![Input::Absent, varied(&[N, 2, 3, 6]), varied(&[N, 2, 3, 6])];
        let on = [square(), past].concat();
        same(&case(on.clone()).outputs(3));
        same(&case(on).int("is_causal", 1).outputs(3));
    }
}

#[test]
fn forms_that_are_not_covered_are_left_and_named() {
    let inputs = vec![varied(&[N, 3, 8]), varied(&[N, 5, 8]), varied(&[N, 5, 8])];
    let past = [varied(&[N, 2, 2, 4]), varied(&[N, 2, 2, 4])];
    let absent = vec![Input::Absent; 3];
    let case = contrib(
        "MultiHeadAttention",
        [inputs, absent, past.to_vec()].concat(),
    );
    let (graph, left) = expanded(&case.int("num_heads", 2).outputs(3));
    assert!(has_fused(&graph));
    assert!(
        left[0].contains("past_key") && left[0].contains("node `node`"),
        "{left:?}"
    );
}

#[test]
fn a_model_with_fused_operators_is_opened_and_differentiated() {
    crate::runtime_ready();
    let inputs = vec![
        varied(&[N, 3]),
        floats(&[4, 3], |at| (at as f32).sin()),
        floats(&[4], |at| at as f32),
    ];
    let case = contrib("FusedGemm", inputs)
        .int("transB", 1)
        .string("activation", "Tanh");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("fused.onnx");
    mohs::onnx::write(&case.model(), &file).unwrap();
    let model = mohs::model::Model::open(&file, &mohs::model::ModelOptions::default()).unwrap();
    assert!(!has_fused(model.graph()));
    let gradient = model
        .gradient(&mohs::model::GradientOptions::default())
        .unwrap();
    assert!(
        gradient
            .graph
            .nodes
            .iter()
            .all(|node| node.domain().is_empty())
    );
}
