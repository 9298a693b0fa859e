//! Layers of sequences against PyTorch: their outputs, and the gradients of everything.
//!
//! layers.py made the values, in f64; parameters have PyTorch's names on both sides.

use super::{assert_close, expected_of, pattern};
use dlc::{Compiler, Network, Tensor};
use std::fmt::Write;

struct Case {
    name: &'static str,
    /// The shapes of the inputs `x0`, `x1`, ..
    inputs: &'static [&'static [usize]],
    /// The layer, which may use `lengths`, i32[3].
    layer: &'static str,
    /// The outputs of `net`, a tuple.
    outputs: &'static str,
    lengths: [i32; 3],
}

const X: &[usize] = &[3, 7, 6];
const MEMORY: &[usize] = &[3, 5, 6];
const LENGTHS: [i32; 3] = [7, 1, 4];
const SOURCE_LENGTHS: [i32; 3] = [2, 5, 3];

const fn case(
    name: &'static str,
    inputs: &'static [&'static [usize]],
    layer: &'static str,
    outputs: &'static str,
) -> Case {
    Case { name, inputs, layer, outputs, lengths: LENGTHS }
}

const fn with_memory(name: &'static str, layer: &'static str) -> Case {
    let (inputs, outputs) = (&[X, MEMORY], "y0 = net(x0, x1)");
    Case { name, inputs, layer, outputs, lengths: SOURCE_LENGTHS }
}

/// Attention with biases by distance, one learned, one not.
const BIASED: &str = "block Alibi()(x: [N, T, D]) -> [N, T, D] {
  attn = named[\"*\"](self_attention(2, bias = alibi(2, T, T), causal = yes))
  x |> attn
}
block Relative(far, causal)(x: [N, T, D]) -> [N, T, D] {
  attn = self_attention(2, bias = relative_bias(2, T, T, 8, far, causal = causal), causal = causal)
  x |> attn
}
";

const ONE: &str = "y0 = net(x0)";
const WITH_STATE: &str = "y0, y1 = net(x0)";
const WITH_STATES: &str = "y0, y1, y2 = net(x0)";

const CASES: &[Case] = &[
    case("rnn_tanh", &[X, &[1, 3, 5]], "rnn(5, h0 = x1, states = yes)", WITH_STATE),
    case("rnn_relu", &[X], "rnn(5, activation = relu, states = yes)", WITH_STATE),
    case("lstm", &[X], "lstm(5, states = yes)", WITH_STATES),
    case(
        "lstm_states",
        &[X, &[1, 3, 5], &[1, 3, 5]],
        "lstm(5, h0 = x1, c0 = x2, states = yes)",
        WITH_STATES,
    ),
    case("lstm_one_step", &[&[3, 1, 6]], "lstm(5, states = yes)", WITH_STATES),
    case(
        "lstm_stacked",
        &[X, &[4, 3, 5], &[4, 3, 5]],
        "lstm(5, layers = 2, bidirectional = yes, lengths = lengths, h0 = x1, c0 = x2,
              states = yes)",
        WITH_STATES,
    ),
    case("gru", &[X], "gru(5, states = yes)", WITH_STATE),
    case(
        "gru_stacked",
        &[X, &[4, 3, 5]],
        "gru(5, layers = 2, bidirectional = yes, lengths = lengths, h0 = x1, states = yes)",
        WITH_STATE,
    ),
    case("rnn_no_bias", &[X], "rnn(5, layers = 2, bias = no, states = yes)", WITH_STATE),
    case("lstm_no_bias", &[X], "lstm(5, bias = no, states = yes)", WITH_STATES),
    case("gru_no_bias", &[X], "gru(5, bias = no, bidirectional = yes, states = yes)", WITH_STATE),
    case(
        "lstm_projected",
        &[X, &[1, 3, 2], &[1, 3, 5]],
        "lstm(5, P = 2, h0 = x1, c0 = x2, states = yes)",
        WITH_STATES,
    ),
    case(
        "lstm_projected_stacked",
        &[X, &[4, 3, 3], &[4, 3, 5]],
        "lstm(5, P = 3, layers = 2, bidirectional = yes, lengths = lengths, h0 = x1, c0 = x2,
              states = yes)",
        WITH_STATES,
    ),
    case("self_attention", &[X], "self_attention(2)", ONE),
    case("causal_attention", &[X], "self_attention(2, causal = yes)", ONE),
    with_memory("padded_attention", "cross_attention(2, mask = lengths |> length_mask(5))"),
    case("relative_attention", &[X], "Relative(5, no)", ONE),
    case("causal_relative_attention", &[X], "Relative(6, yes)", ONE),
    case(
        "encoder_post",
        &[X],
        "encoder_layer(2, 8, mask = lengths |> length_mask(7), rate = 0.0)",
        ONE,
    ),
    case(
        "encoder_pre",
        &[X],
        "encoder_layer(2, 8, pre_norm = yes, activation = gelu,
                       mask = lengths |> length_mask(7), rate = 0.0)",
        ONE,
    ),
    with_memory("decoder_post", "decoder_layer(2, 8, memory_mask = lengths |> length_mask(5))"),
    with_memory(
        "decoder_pre",
        "decoder_layer(2, 8, pre_norm = yes, memory_mask = lengths |> length_mask(5))",
    ),
    case("layer_norm", &[X], "layer_norm()", ONE),
    case("rms_norm", &[X], "rms_norm()", ONE),
    case("gru_reset_before", &[X], "gru(5, reset_after = no)", ONE),
    case("rotary", &[&[3, 7, 2, 4]], "rotary()", ONE),
    case("alibi_attention", &[X], "Alibi()", ONE),
    case("grouped_attention", &[&[3, 7, 8]], "grouped_attention(4, G = 2)", ONE),
    case("swiglu", &[X], "swiglu(5)", ONE),
    case("llama_block", &[&[3, 7, 8]], "llama_block(4, 5, G = 2)", ONE),
    case(
        "dot_attention",
        &[&[3, 6], X],
        "dot_attention(mask = lengths |> length_mask(7) |> as[3, 7])",
        "y0, y1 = net(x0, x1)",
    ),
    case(
        "additive_attention",
        &[&[3, 5], X],
        "additive_attention(4, mask = lengths |> length_mask(7) |> as[3, 7])",
        "y0, y1 = net(x0, x1)",
    ),
    Case {
        name: "transformer",
        inputs: &[MEMORY, X],
        layer: "transformer(2, 2, 8, mask = lengths |> length_mask(5))",
        outputs: "y0 = net(x0, x1)",
        lengths: SOURCE_LENGTHS,
    },
    with_memory(
        "transformer_decoder",
        "transformer_decoder(2, 2, 8, pre_norm = yes, memory_mask = lengths |> length_mask(5))",
    ),
];

impl Case {
    fn expected(&self, name: &str) -> Vec<f32> {
        expected_of("layers.safetensors", &format!("{}.{name}", self.name))
    }

    fn output_count(&self) -> usize {
        self.outputs.matches('y').count()
    }

    /// A model of the layer whose results are its outputs and `gradients` of their sum, each
    /// weighted by an input of its own.
    fn source(&self, weights: &[Vec<usize>], gradients: &[String]) -> String {
        let mut text = format!("{BIASED}model M(lengths: i32[3]");
        let inputs = self.inputs.iter().enumerate().map(|(k, shape)| ("x", k, *shape));
        let weights = weights.iter().enumerate().map(|(k, shape)| ("w", k, shape.as_slice()));
        for (kind, k, shape) in inputs.chain(weights) {
            write!(text, ", {kind}{k}: f32{shape:?}").unwrap();
        }
        write!(text, ") {{\n  net = {}\n  {}\n", self.layer, self.outputs).unwrap();
        let all = |form: fn(usize) -> String, between: &str| {
            (0..self.output_count()).map(form).collect::<Vec<_>>().join(between)
        };
        let sum = all(|k| format!("sum(y{k} * w{k})"), " + ");
        let mut results = vec![all(|k| format!("y{k}"), ", ")];
        results.extend(gradients.iter().map(|of| format!("grad(loss, wrt = {of})")));
        match gradients {
            [] => write!(text, "  ({})\n}}\n", results.join(", ")).unwrap(),
            _ => write!(text, "  loss = {sum}\n  ({})\n}}\n", results.join(", ")).unwrap(),
        }
        text
    }

    fn network(&self, weights: &[Vec<usize>], gradients: &[String]) -> Network {
        let source = self.source(weights, gradients);
        let module = Compiler::new().threads(2).compile_text("layer.dl", &source);
        let module = module.unwrap_or_else(|e| panic!("{}: {e}\n{source}", self.name));
        let model = module.model("M").unwrap();
        model.bind([]).unwrap_or_else(|e| panic!("{}: {e}\n{source}", self.name))
    }

    fn check(&self) {
        let plain = self.network(&[], &[]);
        let mut parameters: Vec<String> = plain.parameters().map(|b| b.name.to_string()).collect();
        parameters.sort();
        let shapes: Vec<Vec<usize>> = plain.outputs().map(|b| shape_of(&b.shape)).collect();
        let inputs = (0..self.inputs.len()).map(|k| format!("x{k}"));
        // What is in a stack of layers has no name outside.
        let named = parameters.iter().filter(|name| !name.contains(".layers.")).cloned();
        let gradients: Vec<String> = inputs.chain(named).collect();
        let network = self.network(&shapes, &gradients);
        for (site, name) in parameters.iter().enumerate() {
            let buffer = network.parameters().find(|b| *b.name == **name).unwrap();
            let value = weight(200 + site as u64, &shape_of(&buffer.shape));
            network.write(name, &value).unwrap();
        }
        let lengths = Tensor::i32([3], self.lengths.to_vec());
        let mut given = vec![("lengths".to_owned(), lengths)];
        given.extend(fills("x", 100, self.inputs.iter().map(|s| s.to_vec())));
        given.extend(fills("w", 300, shapes.into_iter()));
        let given: Vec<(&str, &Tensor)> = given.iter().map(|(n, t)| (n.as_str(), t)).collect();
        let found = network.run(&given).unwrap();
        let mut found = found.iter().map(|(_, tensor)| tensor.as_f32().unwrap());
        let names = (0..self.output_count()).map(|k| k.to_string());
        let of = |name: &String| format!("grad.{}", name.strip_prefix("net.").unwrap_or(name));
        for name in names.chain(gradients.iter().map(of)) {
            let label = format!("{}: {name}", self.name);
            assert_close(&label, found.next().unwrap(), &self.expected(&name));
        }
        assert!(found.next().is_none());
    }
}

fn shape_of(sizes: &[dlc_kernel::Size]) -> Vec<usize> {
    sizes.iter().map(|size| size.as_const().unwrap() as usize).collect()
}

/// The values of layers.py: numbers in [-1, 1) by site.
fn fill(site: u64, shape: &[usize], scale: f32) -> Tensor {
    let flat = pattern(shape.iter().product(), site);
    Tensor::f32(shape, flat.into_iter().map(|v| v as f32 * scale).collect())
}

fn fills(kind: &str, site: u64, shapes: impl Iterator<Item = Vec<usize>>) -> Vec<(String, Tensor)> {
    let value = |k: usize, shape: &[usize]| fill(site + k as u64, shape, 1.0);
    shapes.enumerate().map(|(k, shape)| (format!("{kind}{k}"), value(k, &shape))).collect()
}

fn weight(site: u64, shape: &[usize]) -> Tensor {
    let fan_in = if shape.len() > 1 { shape[shape.len() - 1] } else { 4 };
    fill(site, shape, 1.0 / (fan_in as f64).sqrt() as f32)
}

#[test]
fn outputs_and_gradients_of_layers_are_those_of_pytorch() {
    CASES.iter().for_each(Case::check);
}

/// PyTorch has no sequences without steps: the state stays what it was.
#[test]
fn a_sequence_without_steps_keeps_the_state() {
    let text =
        "model M(x: f32[2, T, 3], h: f32[2, 2, 4]) -> (y: f32[2, T, 8], last: f32[2, 2, 4]) {
        x |> gru(4, bidirectional = yes, h0 = h, states = yes) }";
    let network = Compiler::new().compile_text("m.dl", text).unwrap();
    let network = network.model("M").unwrap().bind([("T", 0)]).unwrap();
    let h = fill(1, &[2, 2, 4], 1.0);
    let found = network.run(&[("x", &Tensor::f32([2, 0, 3], vec![])), ("h", &h)]).unwrap();
    assert!(found.get("y").unwrap().as_f32().unwrap().is_empty());
    assert_eq!(found.get("last").unwrap().as_f32().unwrap(), h.as_f32().unwrap());
}
