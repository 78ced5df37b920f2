//! Help and messages at 80 columns, and what each argument takes.

use super::*;
use crate::threat::{Bounds, Norm};
use clap::CommandFactory;

fn parse(line: &str) -> Result<EvaluateArguments, String> {
    let words = format!("mohs evaluate model.onnx {line}");
    let command = Arguments::command().term_width(80);
    let matches = command
        .try_get_matches_from(words.split_whitespace())
        .map_err(|error| error.to_string())?;
    let arguments = <Arguments as clap::FromArgMatches>::from_arg_matches(&matches)
        .map_err(|error| error.to_string())?;
    match arguments.command {
        Command::Evaluate(arguments) => {
            arguments.check().map_err(|error| error.to_string())?;
            Ok(*arguments)
        }
        _ => Err("another command".to_owned()),
    }
}

fn evaluate(line: &str) -> EvaluateArguments {
    parse(&format!("--data test.npz --epsilon 8/255 {line}")).unwrap()
}

/// The first line of the message about one flag of an otherwise good command line.
fn refusal(flag: &str) -> String {
    let rest = if flag.starts_with("--epsilon") {
        ""
    } else {
        "--epsilon 8/255"
    };
    let data = if flag.starts_with("--data") {
        ""
    } else {
        "--data test.npz"
    };
    let message = parse(&format!("{data} {rest} {flag}")).unwrap_err();
    message.lines().next().unwrap_or_default().to_owned()
}

fn help_of(command: &str) -> String {
    let mut whole = Arguments::command().term_width(80);
    whole.build();
    let help = match command {
        "" => whole.render_long_help(),
        name => whole.find_subcommand_mut(name).unwrap().render_long_help(),
    };
    // Clap pads empty lines.
    help.to_string()
        .lines()
        .map(|line| line.trim_end().to_owned() + "\n")
        .collect()
}

#[test]
fn the_definition_is_sound() {
    Arguments::command().debug_assert();
}

#[test]
fn every_command_has_an_example_and_fits_80_columns() {
    let command = Arguments::command();
    let names: Vec<&str> = command
        .get_subcommands()
        .map(clap::Command::get_name)
        .collect();
    assert_eq!(
        names,
        [
            "evaluate",
            "gate",
            "compare",
            "gradient",
            "train",
            "inspect",
            "demo",
            "doctor",
            "list",
            "completions",
            "man"
        ]
    );
    for name in names {
        let help = help_of(name);
        assert!(
            help.contains(&format!("\nExamples:\n  mohs {name}")),
            "{help}"
        );
        assert!(
            help.lines().all(|line| line.chars().count() <= 80),
            "{help}"
        );
    }
}

#[test]
fn help_of_mohs() {
    insta::assert_snapshot!(help_of(""), @"
    The scratch test for exported models: attacks an ONNX classifier with exact
    gradients and reports how robust it is.

    Usage: mohs [OPTIONS] <COMMAND>

    Commands:
      evaluate     Attacks a model on a data set and reports how robust it is
      gate         Evaluates a model and fails where it falls short of thresholds
      compare      Compares two reports sample by sample: which model is more
                   robust?
      gradient     Derives the gradient graph of a model, writes it as ONNX, or
                   checks it
      train        Trains a model to withstand perturbations, and writes it with new
                   weights
      inspect      Shows a model's inputs, outputs and operators, and whether it can
                   be differentiated
      demo         Attacks two small models and shows their robustness side by side
      doctor       Shows which ONNX Runtime and which devices are used, and why
      list         Lists the attacks, the methods of training, or the operators that
                   can be differentiated
      completions  Prints completions for a shell
      man          Writes manual pages, one per command
      help         Print this message or the help of the given subcommand(s)

    Options:
      -q, --quiet
              Say nothing on stderr but errors; show no progress bar

      -v, --verbose...
              Say more on stderr; twice for everything

      -h, --help
              Print help

      -V, --version
              Print version

    Examples:
      mohs demo
      mohs evaluate model.onnx --data test.npz --epsilon 2/255,8/255
      mohs evaluate --help

    Exit codes: 0 fine; 1 a gate or a check failed; 2 bad usage or bad input; 3 the
    runtime or
    the device failed.
    ");
}

#[test]
#[expect(clippy::too_many_lines, reason = "a snapshot")]
fn help_of_evaluate() {
    insta::assert_snapshot!(help_of("evaluate"), @r"
    Attacks a classifier on every sample of a data set, within a ball of radius ε,
    with exact gradients derived from the model itself. Shows a summary table; with
    --out, also writes the report as CSV, JSON and a page for the browser.

    Usage: mohs evaluate [OPTIONS] --data <DATA[,LABELS]> <MODEL>

    Arguments:
      <MODEL>
              The ONNX file

    Options:
      -q, --quiet
              Say nothing on stderr but errors; show no progress bar

      -v, --verbose...
              Say more on stderr; twice for everything

      -h, --help
              Print help (see a summary with '-h')

    Model:
          --input <NAME>
              The input to perturb, where the model has several

          --output <NAME>
              The output that holds the logits, where the model has several

          --wrt <TENSOR>
              Perturb this inner tensor, such as an embedding, instead of an input

          --input-shape <SHAPE>
              The shape of one sample, such as 3,224,224, where the model leaves it
              open

          --keep-softmax
              Differentiate through a final Softmax instead of taking the logits
              below it

          --straight-through
              Pass gradients straight through rounding, signs and quantisation,
              which have none of their own

    Data:
          --data <DATA[,LABELS]>
              The data set: .npz, .csv, .parquet, CIFAR .bin, a folder of images, or
              two .npy or IDX files (samples,labels)

          --x-key <KEY>
              The name of the samples in an .npz file [default: x]

          --y-key <KEY>
              The name of the labels in an .npz file [default: y]

          --label-column <COLUMN>
              The label's column in a .csv file, by name or by position from 0
              [default: label]

          --scale <FACTOR>
              Multiply the data by this [default: 1/255 for integers where the
              bounds are 0,1; else 1]

          --layout <LAYOUT>
              The order of axes in the data, where it is not the model's

              Possible values:
              - nchw: Channels first
              - nhwc: Channels last

          --offset <N>
              Skip this many samples

              [default: 0]

          --limit <N>
              Use at most this many samples

          --mean <A,B,C>
              Subtract these means inside the model, one per channel, so that ε
              counts in the data's own space

          --std <A,B,C>
              Divide by these standard deviations inside the model, one per channel

    Attack:
          --attack <ATTACKS>
              The attacks, each with its parameters after a colon:
              fgsm,pgd:steps=40,restarts=5 (may be repeated)

              [default: pgd]

          --norm <NORMS>
              The norm that perturbations are measured in; of several, one after the
              other: linf,l2

              Possible values:
              - linf: The largest absolute change of any element
              - l2:   The Euclidean length of the change
              - l1:   The sum of absolute changes
              - l0:   How many elements are changed (attack: fmn)

              [default: linf]

          --epsilon <RADII>
              The radii, as fractions or decimals in the units of the data:
              2/255,0.03; of one norm alone: l2:0.5

          --minimal-epsilon <LOW,HIGH>
              Look for the smallest radius that breaks each sample, between these
              two, and show its quantiles

          --bounds <LOW,HIGH>
              The smallest and the largest valid value of the data, or none

              [default: 0,1]

          --keep <KEEP>
              Which points of an attack count

              Possible values:
              - any:  Any misclassified point on the way breaks a sample
              - last: Only the last point of each restart is judged

              [default: any]

          --seed <N>
              The seed of every random number

              [default: 0]

          --gradient <FILE>
              Take gradients from this graph, made under the contract of `mohs
              gradient`, after checking it against the model

    Results:
          --out <DIR>
              Write the report into this folder

          --format <FORMATS>
              The forms of the report

              Possible values:
              - samples:  samples.csv: A row per sample, attack and ε
              - summary:  summary.csv: A row per attack and ε, and one per ε over
                all attacks
              - json:     report.json: Everything but the single samples, for
                programs
              - html:     report.html: A page with curves, table and gallery, in one
                file
              - markdown: report.md: A page for pull requests and wikis
              - junit:    junit.xml: A test case per threshold (without thresholds,
                per attack and ε), for CI servers
              - sarif:    report.sarif: Failed checks and diagnostics as SARIF
                2.1.0, for code scanning

              [default: samples,summary,json,html]

          --save-adversarial <FILE.npz>
              Write the adversarial examples into this .npz file

    Runtime:
          --batch-size <N>
              Samples at a time, or auto

              [default: auto]

          --search-precision <SEARCH_PRECISION>
              The precision that gradients are computed in; every verdict is
              computed in fp32

              Possible values:
              - fp32: Single precision (on NVIDIA GPUs with TF32)
              - bf16: bfloat16, on OpenVINO and NVIDIA GPUs
              - fp16: float16, on NVIDIA GPUs

              [default: fp32]

          --device <DEVICE>
              Where to run: auto, cpu, cuda, cuda:N, openvino or tensorrt, or
              several that share the samples, as in cuda:0,cuda:1

              [default: auto]

          --threads <N>
              Threads that compute at the same time [default: one per core]

          --onnxruntime <PATH>
              The ONNX Runtime library to load [default: found or downloaded, see
              `mohs doctor`]

    Examples:
      mohs evaluate model.onnx --data test.npz --epsilon 8/255
      mohs evaluate model.onnx --data test.npz --epsilon 2/255,8/255 \
          --attack fgsm,pgd:steps=40,restarts=5 --out report
      mohs evaluate model.onnx --data images.npy,labels.npy --norm l2 \
          --epsilon 0.5 --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225
      mohs evaluate model.onnx --data images-idx3-ubyte.gz,labels-idx1-ubyte.gz \
          --epsilon 0.1,0.2,0.3 --limit 1000
    ");
}

#[test]
fn help_of_gradient() {
    insta::assert_snapshot!(help_of("gradient"), @"
    Derives the exact gradient of a model's loss and writes it as an ONNX model in
    standard operators. It takes the model's inputs and `labels` (int64 [N]), and
    gives the model's outputs, `loss` (one per sample) and `grad` (the shape of the
    input).

    With --check, the gradient is compared with differences of the model's own loss
    on samples, along the gradient and along random directions at ever smaller
    steps, and what was found is printed; where they disagree, or nothing can be
    told, the exit code is 1 and no file is written.

    With --parameters, the graph also takes every trainable tensor as an input, and
    gives the gradient of the mean loss by it as `grad.NAME`; running statistics
    come out as `next.NAME`, dropout masks go in as `mask.NODE`, and an inner tensor
    named by --wrt has an input `perturbation.NAME` that is added to it.

    Usage: mohs gradient [OPTIONS] <MODEL>

    Arguments:
      <MODEL>
              The ONNX file

    Options:
      -o, --out <FILE>
              The ONNX file to write

          --loss <LOSS>
              The loss per sample, on the logits

              Possible values:
              - cross-entropy: −log softmax(logits) at the label
              - margin:        The largest other logit minus the label's
              - dlr:           Difference of logits ratio (Croce and Hein 2020)

              [default: cross-entropy]

          --check <DATA[,LABELS]>
              Compare the gradient with differences of the model's loss on these
              samples: the first 32, or --limit

          --gradient <FILE>
              Check this gradient graph, made elsewhere, instead of deriving one

      -q, --quiet
              Say nothing on stderr but errors; show no progress bar

      -v, --verbose...
              Say more on stderr; twice for everything

      -h, --help
              Print help (see a summary with '-h')

    Model:
          --input <NAME>
              The input to perturb, where the model has several

          --output <NAME>
              The output that holds the logits, where the model has several

          --wrt <TENSOR>
              Perturb this inner tensor, such as an embedding, instead of an input

          --input-shape <SHAPE>
              The shape of one sample, such as 3,224,224, where the model leaves it
              open

          --keep-softmax
              Differentiate through a final Softmax instead of taking the logits
              below it

          --straight-through
              Pass gradients straight through rounding, signs and quantisation,
              which have none of their own

    Training graph:
          --parameters
              Write the training graph: every trainable tensor becomes an input,
              with its gradient as `grad.NAME`

          --freeze <PATTERN>
              Leave parameters whose names fit this pattern as they are (may be
              repeated): features.*

          --batch-norm <BATCH_NORM>
              Whether batch normalisation uses statistics of the batch, or the
              running ones

              Possible values:
              - train:  Those of each batch; running ones are updated
              - frozen: The running ones, as they are in the file

              [default: train]

    Data:
          --x-key <KEY>
              The name of the samples in an .npz file [default: x]

          --y-key <KEY>
              The name of the labels in an .npz file [default: y]

          --label-column <COLUMN>
              The label's column in a .csv file, by name or by position from 0
              [default: label]

          --scale <FACTOR>
              Multiply the data by this [default: 1/255 for integers where the
              bounds are 0,1; else 1]

          --layout <LAYOUT>
              The order of axes in the data, where it is not the model's

              Possible values:
              - nchw: Channels first
              - nhwc: Channels last

          --offset <N>
              Skip this many samples

              [default: 0]

          --limit <N>
              Use at most this many samples

          --mean <A,B,C>
              Subtract these means inside the model, one per channel, so that ε
              counts in the data's own space

          --std <A,B,C>
              Divide by these standard deviations inside the model, one per channel

          --bounds <LOW,HIGH>
              The smallest and the largest valid value of the data, or none

              [default: 0,1]

    Runtime:
          --device <DEVICE>
              Where to run: auto, cpu, cuda, cuda:N, openvino or tensorrt, or
              several that share the samples, as in cuda:0,cuda:1

              [default: auto]

          --threads <N>
              Threads that compute at the same time [default: one per core]

          --onnxruntime <PATH>
              The ONNX Runtime library to load [default: found or downloaded, see
              `mohs doctor`]

    Examples:
      mohs gradient model.onnx -o gradient.onnx
      mohs gradient model.onnx -o training.onnx --parameters --freeze 'features.*'
      mohs gradient model.onnx -o gradient.onnx --loss margin
      mohs gradient bert.onnx -o gradient.onnx --wrt embeddings
      mohs gradient model.onnx --check test.npz --limit 100
      mohs gradient model.onnx --check test.npz --gradient from-jax.onnx
    ");
}

#[test]
#[expect(clippy::too_many_lines, reason = "the help is long")]
fn help_of_train() {
    insta::assert_snapshot!(help_of("train"), @r#"
    Trains an exported classifier on perturbed samples and writes it with new
    weights: same inputs, outputs, operators and opset. Writes training.csv beside
    it, with a row per epoch. `mohs list methods` shows the methods with their
    parameters.

    Usage: mohs train [OPTIONS] --data <DATA[,LABELS]> --out <FILE> <MODEL>

    Arguments:
      <MODEL>
              The ONNX file

    Options:
      -q, --quiet
              Say nothing on stderr but errors; show no progress bar

      -v, --verbose...
              Say more on stderr; twice for everything

      -h, --help
              Print help (see a summary with '-h')

    Model:
          --input <NAME>
              The input to perturb, where the model has several

          --output <NAME>
              The output that holds the logits, where the model has several

          --wrt <TENSOR>
              Perturb this inner tensor, such as an embedding, instead of an input

          --input-shape <SHAPE>
              The shape of one sample, such as 3,224,224, where the model leaves it
              open

          --keep-softmax
              Differentiate through a final Softmax instead of taking the logits
              below it

          --straight-through
              Pass gradients straight through rounding, signs and quantisation,
              which have none of their own

    Data:
          --data <DATA[,LABELS]>
              The training data: .npz, .csv, CIFAR .bin, a folder of images, or two
              .npy or IDX files (samples,labels)

          --validation <DATA[,LABELS]>
              Data to measure clean and robust accuracy on after each epoch; the
              best weights are kept

          --validation-limit <N>
              Use at most this many validation samples

          --x-key <KEY>
              The name of the samples in an .npz file [default: x]

          --y-key <KEY>
              The name of the labels in an .npz file [default: y]

          --label-column <COLUMN>
              The label's column in a .csv file, by name or by position from 0
              [default: label]

          --scale <FACTOR>
              Multiply the data by this [default: 1/255 for integers where the
              bounds are 0,1; else 1]

          --layout <LAYOUT>
              The order of axes in the data, where it is not the model's

              Possible values:
              - nchw: Channels first
              - nhwc: Channels last

          --offset <N>
              Skip this many training samples

              [default: 0]

          --limit <N>
              Use at most this many training samples

          --mean <A,B,C>
              Subtract these means in front of the model, one per channel, so that ε
              counts in the data's own space

          --std <A,B,C>
              Divide by these standard deviations in front of the model, one per
              channel

          --crop <PIXELS>
              Put so many pixels around each image, and take a random crop of its
              size

              [default: 0]

          --flip
              Flip half of the images from left to right

          --padding <TOKEN>
              The token that stands for padding: its positions are not perturbed

    Training:
          --method <METHOD>
              How to train, with parameters after a colon: pgd:steps=7

              [default: pgd]

          --norm <NORM>
              The norm that perturbations are measured in

              Possible values:
              - linf: The largest absolute change of any element
              - l2:   The Euclidean length of the change
              - l1:   The sum of absolute changes
              - l0:   How many elements are changed (attack: fmn)

              [default: linf]

          --epsilon <RADIUS>
              The radius, as a fraction or decimal in the units of the data: 8/255

          --bounds <LOW,HIGH>
              The smallest and the largest valid value of the data, or none

              [default: 0,1]

          --epochs <N>
              How often to go through the data

              [default: 10]

          --batch-size <N>
              Samples in a batch

              [default: 128]

          --optimizer <OPTIMIZER>
              The optimizer, with parameters after a colon:
              sgd:learning_rate=0.1,momentum=0.9; weight decay spares biases and
              normalisation, unless decay_all=true is given

              [default: adam]

          --schedule <SCHEDULE>
              The learning rate's course: constant, cosine, piecewise or one-cycle,
              with parameters after a colon

              [default: constant]

          --batch-norm <BATCH_NORM>
              Whether batch normalisation uses and updates statistics of the
              batches, or keeps those of the file

              Possible values:
              - train:  Those of each batch; running ones are updated
              - frozen: The running ones, as they are in the file

              [default: train]

          --freeze <PATTERN>
              Leave parameters whose names fit this pattern as they are (may be
              repeated): features.*

          --reinitialize <SEED>
              Draw all parameters anew by this seed before training

          --training-graph <FILE>
              Take losses and gradients from this graph, made under the contract of
              `mohs gradient --parameters`

          --validation-steps <N>
              The steps of the attack that measures robust accuracy after each epoch

              [default: 10]

          --seed <N>
              The seed of every random number

              [default: 0]

    Results:
      -o, --out <FILE>
              The ONNX file to write

          --log <FILE>
              The table to write, with a row per epoch [default: training.csv beside
              the ONNX file]

          --checkpoint <DIR>
              Write a checkpoint into this folder after each epoch, every five
              minutes, and on Ctrl-C

          --resume
              Go on from the checkpoint in that folder

    Runtime:
          --device <DEVICE>
              Where to run: auto, cpu, cuda, cuda:N, openvino or tensorrt, or
              several that share the samples, as in cuda:0,cuda:1

              [default: auto]

          --threads <N>
              Threads that compute at the same time [default: one per core]

          --onnxruntime <PATH>
              The ONNX Runtime library to load [default: found or downloaded, see
              `mohs doctor`]

    Examples:
      mohs train model.onnx --data train.npz --method pgd:steps=7 --epsilon 8/255 \
          --validation test.npz --epochs 20 -o hardened.onnx
      mohs train model.onnx --data train.npz --method free:replays=8 --epsilon 0.3 \
          --optimizer sgd:learning_rate=0.05,momentum=0.9,weight_decay=5e-4 \
          --schedule one-cycle --epochs 40 -o hardened.onnx
      mohs train bert.onnx --data tokens.npz --method freelb --norm l2 --epsilon 0.3
      \
          --wrt embeddings --padding 0 --optimizer adamw:learning_rate=2e-5 -o
          out.onnx
      mohs train model.onnx --data train.npz --method standard --reinitialize 1 \
          --checkpoint run --epochs 90 -o model-90.onnx
    "#);
}

#[test]
fn help_of_inspect() {
    insta::assert_snapshot!(help_of("inspect"), @"
    Shows a model's inputs, outputs, opset and parameters, and operator by operator
    whether mohs can differentiate it. Nothing is written.

    Usage: mohs inspect [OPTIONS] <MODEL>

    Arguments:
      <MODEL>
              The ONNX file

    Options:
          --tensors
              List the names of the tensors inside, for --wrt

      -q, --quiet
              Say nothing on stderr but errors; show no progress bar

      -v, --verbose...
              Say more on stderr; twice for everything

      -h, --help
              Print help (see a summary with '-h')

    Examples:
      mohs inspect model.onnx
      mohs inspect model.onnx --tensors
    ");
}

#[test]
fn help_of_demo() {
    insta::assert_snapshot!(help_of("demo"), @"
    Attacks two classifiers of handwritten digits, one trained normally and one
    trained adversarially, with every attack at several ε, writes the reports and
    shows the two robustness curves side by side. Takes under a minute.

    Usage: mohs demo [OPTIONS]

    Options:
          --out <DIR>
              The folder to write the reports into

              [default: reports/demo]

      -q, --quiet
              Say nothing on stderr but errors; show no progress bar

      -v, --verbose...
              Say more on stderr; twice for everything

      -h, --help
              Print help (see a summary with '-h')

    Runtime:
          --device <DEVICE>
              Where to run: auto, cpu, cuda, cuda:N, openvino or tensorrt, or
              several that share the samples, as in cuda:0,cuda:1

              [default: auto]

          --threads <N>
              Threads that compute at the same time [default: one per core]

          --onnxruntime <PATH>
              The ONNX Runtime library to load [default: found or downloaded, see
              `mohs doctor`]

    Examples:
      mohs demo
      mohs demo --out /tmp/demo
    ");
}

#[test]
fn help_of_doctor() {
    insta::assert_snapshot!(help_of("doctor"), @"
    Shows which ONNX Runtime library was chosen and why, its version, its execution
    providers, the devices that answer and the number of threads; where none is
    found, every place that was looked at.

    Usage: mohs doctor [OPTIONS]

    Options:
          --install <BUILD>
              Download a build of ONNX Runtime into mohs's cache first: cpu, cuda
              (with CUDA's own libraries, 1.3 GB) or openvino

      -q, --quiet
              Say nothing on stderr but errors; show no progress bar

      -v, --verbose...
              Say more on stderr; twice for everything

      -h, --help
              Print help (see a summary with '-h')

    Runtime:
          --device <DEVICE>
              Where to run: auto, cpu, cuda, cuda:N, openvino or tensorrt, or
              several that share the samples, as in cuda:0,cuda:1

              [default: auto]

          --threads <N>
              Threads that compute at the same time [default: one per core]

          --onnxruntime <PATH>
              The ONNX Runtime library to load [default: found or downloaded, see
              `mohs doctor`]

    Examples:
      mohs doctor
      mohs doctor --device cuda
      mohs doctor --install openvino
      mohs doctor --onnxruntime /opt/onnxruntime/lib/libonnxruntime.so
    ");
}

#[test]
fn help_of_list() {
    insta::assert_snapshot!(help_of("list"), @"
    Lists what this version of mohs knows: the attacks with their parameters and
    defaults, the methods of training, or the ONNX operators that it can
    differentiate.

    Usage: mohs list [OPTIONS] <WHAT>

    Arguments:
      <WHAT>
              What to list

              Possible values:
              - attacks:   The attacks with their parameters
              - methods:   The methods of training with their parameters, optimizers
                and schedules
              - operators: The operators that can be differentiated

    Options:
      -q, --quiet
              Say nothing on stderr but errors; show no progress bar

      -v, --verbose...
              Say more on stderr; twice for everything

      -h, --help
              Print help (see a summary with '-h')

    Examples:
      mohs list attacks
      mohs list methods
      mohs list operators
    ");
}

#[test]
fn defaults() {
    let arguments = evaluate("");
    assert_eq!(arguments.attack, ["pgd"]);
    assert_eq!(
        (arguments.norm, arguments.keep),
        (vec![Norm::Linf], Keep::Any)
    );
    assert_eq!(arguments.bounds, Bounds::UNIT);
    assert_eq!(
        (
            arguments.reading.offset,
            arguments.reading.limit,
            arguments.seed
        ),
        (0, None, 0)
    );
    assert_eq!(arguments.batch_size, BatchSize::Auto);
    assert_eq!(
        (&arguments.reading.x_key, &arguments.reading.y_key),
        (&None, &None)
    );
    assert_eq!(arguments.reading.normalization().unwrap(), None);
    assert_eq!(arguments.runtime.device, "auto");
}

#[test]
fn values_are_read() {
    let arguments = evaluate(
        "--attack fgsm,pgd:steps=40,restarts=5 --attack fgm --norm l1 --keep last --bounds -1,1 --mean -0.5,0.5 --std 1/2,2 \
         --batch-size 32 --limit 10 --input-shape 3,224,224 --scale 1/255 --layout nhwc",
    );
    assert_eq!(arguments.attack, ["fgsm,pgd:steps=40,restarts=5", "fgm"]);
    assert_eq!(
        (arguments.norm, arguments.keep),
        (vec![Norm::L1], Keep::Last)
    );
    assert_eq!(
        arguments.bounds,
        Bounds {
            low: -1.0,
            high: 1.0
        }
    );
    let normalization = arguments.reading.normalization().unwrap().unwrap();
    assert_eq!(
        (normalization.mean, normalization.std),
        (vec![-0.5, 0.5], vec![0.5, 2.0])
    );
    assert!(matches!(arguments.batch_size, BatchSize::Fixed(size) if size.get() == 32));
    assert_eq!(arguments.model.input_shape, Some(Shape(vec![3, 224, 224])));
    assert_eq!(arguments.reading.scale, Some(1.0 / 255.0));
    assert_eq!(arguments.reading.layout, Some(Layout::Nhwc));
    assert_eq!(evaluate("--bounds none").bounds, Bounds::NONE);
    let arguments = parse("--data x.npy,y.npy --epsilon 2/255,0.03 --epsilon 1").unwrap();
    let texts: Vec<&str> = arguments
        .epsilon
        .iter()
        .map(|radius| radius.epsilon.text())
        .collect();
    assert_eq!(texts, ["2/255", "0.03", "1"]);
    assert_eq!(arguments.data.labels, Some("y.npy".into()));
}

#[test]
fn quiet_and_verbose_go_before_and_after_the_command() {
    let verbosity = |line: &str| {
        Arguments::try_parse_from(line.split_whitespace())
            .map(|arguments| arguments.verbosity.verbosity())
    };
    assert_eq!(verbosity("mohs demo").unwrap(), Verbosity::Normal);
    assert_eq!(verbosity("mohs -q demo").unwrap(), Verbosity::Quiet);
    assert_eq!(verbosity("mohs demo --quiet").unwrap(), Verbosity::Quiet);
    assert_eq!(verbosity("mohs demo -v").unwrap(), Verbosity::Verbose);
    assert_eq!(verbosity("mohs demo -vv").unwrap(), Verbosity::Everything);
    assert!(verbosity("mohs demo -q -v").is_err());
}

#[test]
fn each_bad_value_is_refused_with_its_reason() {
    let flags = [
        "--epsilon 0",
        "--epsilon=-8/255",
        "--epsilon nan",
        "--epsilon inf",
        "--epsilon 1/0",
        "--epsilon 2/255,",
        "--epsilon 8/abc",
        "--epsilon 8/255,8/255",
        "--epsilon 0.5,1/2",
        "--bounds 1,0",
        "--bounds 0",
        "--bounds 0,inf",
        "--mean 0.5,0.5 --std 1",
        "--mean 0.5 --std 0",
        "--mean x --std 1",
        "--mean 0.5",
        "--batch-size 0",
        "--limit 0",
        "--threads 0",
        "--offset -1",
        "--input-shape 3,0,224",
        "--input-shape 3,",
        "--norm l3",
        "--keep all",
        "--layout hwc",
        "--scale -1",
        "--data a,b,c",
        "--data a,",
        "--attack=",
        "--gradient g.onnx --keep-softmax",
        "--epsilom 3",
    ];
    let refusals: Vec<String> = flags.iter().map(|flag| refusal(flag)).collect();
    insta::assert_snapshot!(refusals.join("\n"), @"
    error: invalid value '0' for '--epsilon <RADII>': epsilon is zero, which allows no perturbation; give a radius above 0, such as 8/255
    error: invalid value '-8/255' for '--epsilon <RADII>': epsilon is negative; give a radius above 0, such as 8/255
    error: invalid value 'nan' for '--epsilon <RADII>': epsilon is NaN; give a radius above 0, such as 8/255
    error: invalid value 'inf' for '--epsilon <RADII>': epsilon is infinite in float32; give a finite radius, such as 8/255
    error: invalid value '1/0' for '--epsilon <RADII>': a fraction cannot have the denominator zero
    error: invalid value '' for '--epsilon <RADII>': a number is missing; write a decimal such as 0.03 or a fraction such as 8/255
    error: invalid value '8/abc' for '--epsilon <RADII>': `abc` is no number; write a decimal such as 0.03 or a fraction such as 8/255
    --epsilon has `8/255` and `8/255`, which are the same radius; give each radius once
    --epsilon has `0.5` and `1/2`, which are the same radius; give each radius once
    error: invalid value '1,0' for '--bounds <LOW,HIGH>': the first bound must be below the second
    error: invalid value '0' for '--bounds <LOW,HIGH>': bounds are two numbers LOW,HIGH, or none
    error: invalid value '0,inf' for '--bounds <LOW,HIGH>': the number is NaN, infinite or too large for float32
    --mean has 2 values and --std has 1; give one of each per channel
    error: invalid value '0' for '--std <A,B,C>': the number must be above 0
    error: invalid value 'x' for '--mean <A,B,C>': `x` is no number; write a decimal such as 0.03 or a fraction such as 8/255
    error: the following required arguments were not provided:
    error: invalid value '0' for '--batch-size <N>': a batch size is a whole number above 0, or auto
    error: invalid value '0' for '--limit <N>': this must be a whole number above 0
    error: invalid value '0' for '--threads <N>': this must be a whole number above 0
    error: invalid value '-1' for '--offset <N>': this must be a whole number, 0 or above
    error: invalid value '3,0,224' for '--input-shape <SHAPE>': a shape is whole numbers above 0, such as 3,224,224, without the batch axis
    error: invalid value '3,' for '--input-shape <SHAPE>': a shape is whole numbers above 0, such as 3,224,224, without the batch axis
    error: invalid value 'l3' for '--norm <NORMS>'
    error: invalid value 'all' for '--keep <KEEP>'
    error: invalid value 'hwc' for '--layout <LAYOUT>'
    error: invalid value '-1' for '--scale <FACTOR>': the number must be above 0
    error: invalid value 'a,b,c' for '--data <DATA[,LABELS]>': more than two file names; give one file, or two as SAMPLES,LABELS
    error: invalid value 'a,' for '--data <DATA[,LABELS]>': a file name is missing; give one file, or two as SAMPLES,LABELS
    error: invalid value '' for '--attack <ATTACKS>': an attack is missing; `mohs list attacks` shows them
    error: the argument '--gradient <FILE>' cannot be used with '--keep-softmax'
    error: unexpected argument '--epsilom' found
    ");
}

#[test]
fn what_must_be_given_is_named() {
    insta::assert_snapshot!(parse("").unwrap_err(), @"
    error: the following required arguments were not provided:
      --data <DATA[,LABELS]>
      --epsilon <RADII>

    Usage: mohs evaluate --data <DATA[,LABELS]> --epsilon <RADII> <MODEL>

    For more information, try '--help'.
    ");
}

#[test]
fn paths_may_have_commas_where_the_files_are_there() {
    let folder = tempfile::tempdir().unwrap();
    let [samples, labels] = ["a,b.npy", "c,d.npy"].map(|name| folder.path().join(name));
    let text = |path: &std::path::Path| path.display().to_string();
    let both = format!("{},{}", text(&samples), text(&labels));
    let parse = |text: &str| text.parse::<DataPaths>();
    assert!(parse(&both).is_err());
    std::fs::write(&samples, "").unwrap();
    std::fs::write(&labels, "").unwrap();
    let found = parse(&both).unwrap();
    assert_eq!(
        (found.samples, found.labels),
        (samples.clone(), Some(labels))
    );
    let one = parse(&text(&samples)).unwrap();
    assert_eq!((one.samples, one.labels), (samples, None));
}
