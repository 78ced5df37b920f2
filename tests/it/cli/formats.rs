//! Data in every format that mohs reads: the same samples give the same results.

use super::Sandbox;
use super::fixtures::{N, Tiny, constant, evaluate, npz, ready, samples};
use super::results::assert_same;
use crate::gradcheck::info;
use crate::lift::joined;
use mohs::tensor::DType;
use ndarray::{Array1, Array2, Array4, Axis};
use std::fs::File;

#[test]
fn the_data_may_come_in_any_format() {
    let sandbox = ready();
    let (x, y) = samples();
    let bytes: Array2<u8> = x.mapv(|value| (value * 255.0) as u8);
    npz(&sandbox, "data.npz", &bytes.clone().into_dyn(), &y);
    let read = |data: &str, more: &[&str]| {
        let (_, stderr) = sandbox.run(&evaluate("model.onnx", data, more));
        (sandbox.read("report/samples.csv"), stderr)
    };
    let (expected, stderr) = read("data.npz", &[]);
    assert!(stderr.contains("divided by 255"), "{stderr}");

    let mut table = String::from("a,b,c,d,class\n");
    for (row, label) in bytes.rows().into_iter().zip(&y) {
        let cells: Vec<String> = row.iter().map(u8::to_string).collect();
        table.push_str(&format!("{},{label}\n", cells.join(",")));
    }
    std::fs::write(sandbox.path("data.csv"), &table).unwrap();
    let scale = (1.0 / 255.0).to_string();
    let (found, _) = read("data.csv", &["--scale", &scale, "--label-column", "class"]);
    assert_same(&expected, &found);

    ndarray_npy::write_npy(sandbox.path("x.npy"), &bytes).unwrap();
    ndarray_npy::write_npy(sandbox.path("y.npy"), &y).unwrap();
    assert_same(&expected, &read("x.npy,y.npy", &[]).0);

    // IDX has images of 2 × 2, which mohs flattens.
    let mut images = vec![0, 0, 8, 3, 0, 0, 0, 6, 0, 0, 0, 2, 0, 0, 0, 2];
    images.extend(bytes.iter());
    let mut labels = vec![0, 0, 8, 1, 0, 0, 0, 6];
    labels.extend(y.iter().map(|&label| label as u8));
    let packed = |name: &str, bytes: &[u8]| {
        let file = File::create(sandbox.path(name)).unwrap();
        let mut encoder = flate2::write::GzEncoder::new(file, flate2::Compression::default());
        std::io::Write::write_all(&mut encoder, bytes).unwrap();
        encoder.finish().unwrap();
    };
    packed("t-images-idx3-ubyte.gz", &images);
    packed("t-labels-idx1-ubyte.gz", &labels);
    let (found, stderr) = read("t-images-idx3-ubyte.gz,t-labels-idx1-ubyte.gz", &[]);
    assert_same(&expected, &found);
    assert!(stderr.contains("[2, 2]"), "{stderr}");
}

/// A linear classifier of images `[3, 32, 32]` in `images.onnx`, six images sorted by their classes, and what is found of them as `.npz`.
struct Pictures {
    sandbox: Sandbox,
    images: Array4<u8>,
    labels: Array1<i64>,
    expected: String,
}

impl Pictures {
    fn new() -> Self {
        let sandbox = Sandbox::new();
        let weights: Vec<f32> = (0..3072 * 3)
            // Of the first two classes, each in the place of the other.
            .map(|place: usize| place / 3 * 3 + [1, 0, 2][place % 3])
            .map(|place| ((place * 37 % 101) as f32 - 50.0) / 500.0)
            .collect();
        let mut model = Tiny::linear();
        model.inputs = vec![info("x", DType::F32, &[N, Some(3), Some(32), Some(32)])];
        model.nodes[0].input[0] = "flat".into();
        model.nodes.insert(0, joined("Flatten", &["x"], &["flat"]));
        model.initializers[0] = constant("weights", &[3072, 3], &weights);
        model.write(&sandbox, "images.onnx");
        let images = Array4::from_shape_fn((6, 3, 32, 32), |(image, channel, row, column)| {
            ((image * 89 + channel * 53 + row * 7 + column * (11 + image)) % 256) as u8
        });
        let labels = ndarray::array![0, 0, 1, 1, 2, 2];
        npz(&sandbox, "data.npz", &images.clone().into_dyn(), &labels);
        let mut pictures = Pictures {
            sandbox,
            images,
            labels,
            expected: String::new(),
        };
        pictures.expected = pictures.found("data.npz");
        // Some are broken and some are not, so that a mistaken image shows.
        for robust in [",true,", ",false,"] {
            assert!(pictures.expected.contains(robust), "{}", pictures.expected);
        }
        pictures
    }

    /// The `samples.csv` of an evaluation.
    fn found(&self, data: &str) -> String {
        let more = ["--epsilon", "0.002"];
        self.sandbox.run(&evaluate("images.onnx", data, &more));
        self.sandbox.read("report/samples.csv")
    }

    /// An image as a PNG file.
    fn png(&self, image: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, 32, 32);
        encoder.set_color(png::ColorType::Rgb);
        let mut writer = encoder.write_header().unwrap();
        let interleaved = self
            .images
            .index_axis(Axis(0), image)
            .permuted_axes([1, 2, 0]);
        let pixels: Vec<u8> = interleaved.iter().copied().collect();
        writer.write_image_data(&pixels).unwrap();
        writer.finish().unwrap();
        bytes
    }
}

#[test]
fn cifars_binary_files_give_what_arrays_give() {
    let pictures = Pictures::new();
    let records = |labels: fn(u8) -> Vec<u8>| -> Vec<u8> {
        let images = pictures.images.outer_iter().zip(&pictures.labels);
        images
            .flat_map(|(image, &label)| {
                let mut record = labels(label as u8);
                record.extend(image.iter());
                record
            })
            .collect()
    };
    let write = |name: &str, bytes: &[u8]| {
        std::fs::write(pictures.sandbox.path(name), bytes).unwrap();
    };
    write("test_batch.bin", &records(|label| vec![label]));
    assert_same(&pictures.expected, &pictures.found("test_batch.bin"));
    // The coarse label comes first, and does not count.
    write("test.bin", &records(|label| vec![19, label]));
    assert_same(&pictures.expected, &pictures.found("test.bin"));
}

#[test]
fn a_folder_of_images_gives_what_arrays_give() {
    let pictures = Pictures::new();
    for (image, label) in pictures.labels.iter().enumerate() {
        let class = pictures.sandbox.path(&format!("val/class {label}"));
        std::fs::create_dir_all(&class).unwrap();
        std::fs::write(class.join(format!("{image}.png")), pictures.png(image)).unwrap();
    }
    assert_same(&pictures.expected, &pictures.found("val"));
    let report = pictures.sandbox.read("report/report.json");
    let report: serde_json::Value = serde_json::from_str(&report).unwrap();
    let digest = report["provenance"]["data"][0]["sha256"].as_str().unwrap();
    assert_eq!(digest.len(), 64, "{report}");
}

/// Writes images as the Hugging Face hub has them: their encoded bytes with a name, and the label.
#[cfg(feature = "parquet")]
fn write_parquet(path: &std::path::Path, images: &[Vec<u8>], labels: &[i64]) {
    use parquet::data_type::{ByteArray, ByteArrayType, Int64Type};
    use parquet::file::writer::SerializedFileWriter;
    use std::sync::Arc;

    let schema = "message schema {
        required group image { required binary bytes; required binary path (utf8); }
        required int64 label;
    }";
    let schema = Arc::new(parquet::schema::parser::parse_message_type(schema).unwrap());
    let file = File::create(path).unwrap();
    let mut writer = SerializedFileWriter::new(file, schema, Arc::default()).unwrap();
    let mut group = writer.next_row_group().unwrap();
    let bytes = images.iter().map(|image| ByteArray::from(image.clone()));
    let names = (0..images.len()).map(|image| ByteArray::from(format!("{image}.png").as_str()));
    for values in [bytes.collect::<Vec<_>>(), names.collect()] {
        let mut column = group.next_column().unwrap().unwrap();
        let typed = column.typed::<ByteArrayType>();
        typed.write_batch(&values, None, None).unwrap();
        column.close().unwrap();
    }
    let mut column = group.next_column().unwrap().unwrap();
    let typed = column.typed::<Int64Type>();
    typed.write_batch(labels, None, None).unwrap();
    column.close().unwrap();
    group.close().unwrap();
    writer.close().unwrap();
}

#[cfg(feature = "parquet")]
#[test]
fn parquet_files_give_what_arrays_give() {
    let pictures = Pictures::new();
    let images: Vec<Vec<u8>> = (0..6).map(|image| pictures.png(image)).collect();
    let labels = pictures.labels.to_vec();
    write_parquet(&pictures.sandbox.path("test.parquet"), &images, &labels);
    assert_same(&pictures.expected, &pictures.found("test.parquet"));
    std::fs::create_dir(pictures.sandbox.path("parts")).unwrap();
    for (part, rows) in [0..4, 4..6].into_iter().enumerate() {
        let name = format!("parts/test-0000{part}-of-00002.parquet");
        let path = pictures.sandbox.path(&name);
        write_parquet(&path, &images[rows.clone()], &labels[rows]);
    }
    assert_same(&pictures.expected, &pictures.found("parts"));
    let (images, labels) = (&images[..1], &labels[..1]);
    let other = pictures.sandbox.path("parts/train-00000-of-00001.parquet");
    write_parquet(&other, images, labels);
    let arguments = evaluate("images.onnx", "parts", &["--epsilon", "0.002"]);
    pictures
        .sandbox
        .refused(&arguments, &["parts", "test, train"]);
}
