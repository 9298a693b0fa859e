//! An encoder-decoder model on a small language: batches by length, resumption, translations.

use dlc::{Beams, Compiler, GenerateOptions, Module, Tensor, TrainOptions, WeightsFile};
use dlc_train::{END, Event, StopReason, Vocabulary, Weights};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tempfile::TempDir;

/// The size of the vocabulary is not called `V`.
const MODEL: &str = r#"
model Translate(source: i32[N, S], source_length: i32[N], ids: i32[N, T]) -> f32[N, T, V] {
  x = source |> embedding(V, 32) |> sine_positions
  y = ids    |> embedding(V, 32) |> sine_positions
  body = transformer(1, 2, 32, pre_norm = yes, mask = length_mask(S)(source_length), rate = 0.1)
  body(x, y) |> linear(V)
}

model Named(source: i32[N, S], source_length: i32[N], ids: i32[N, T]) -> f32[N, T, Words] {
  x = source |> embedding(Words, 32) |> sine_positions
  y = ids    |> embedding(Words, 32) |> sine_positions
  body = transformer(1, 2, 32, pre_norm = yes, mask = length_mask(S)(source_length), rate = 0.1)
  body(x, y) |> linear(Words)
}

block Parts(V, room, at = 0)(source: i32[N, S], source_length: i32[N], ids: i32[N, T]) {
  x = source |> embedding(V, 32) |> sine_positions
  y = ids    |> embedding(V, 32) |> sine_positions(at = at)
  seen = length_mask(S)(source_length)
  body = transformer(1, 2, 32, pre_norm = yes, mask = seen, room = room, at = at, rate = 0.1)
  body(x, y) |> linear(V)
}

model Write(source: i32[N, S], source_length: i32[N], ids: i32[N, T], at: i32[])
  -> f32[N, T, V]
{
  parts = named["*"](Parts(V, 24, at = at))
  parts(source, source_length, ids)
}

model Short(source: i32[N, S], source_length: i32[N], ids: i32[N, T], at: i32[])
  -> f32[N, T, V]
{
  parts = named["*"](Parts(V, 4, at = at))
  parts(source, source_length, ids)
}

model Seeing(source: i32[N, S], source_length: i32[N], ids: i32[N, T]) -> f32[N, T, V] {
  x = source |> embedding(V, 32) |> sine_positions
  y = ids    |> embedding(V, 32) |> sine_positions
  body = transformer(1, 2, 32, pre_norm = yes, mask = length_mask(S)(source_length), rate = 0.1)
  h = body(x, y)
  last = h[:, T - 1:]
  h + last |> linear(V)
}

model Looking(source: i32[N, S], source_length: i32[N], ids: i32[N, T])
  -> (scores: f32[N, T, V], weights: f32[N, 1, T, S])
{
  seen = length_mask(S)(source_length)
  x = source |> embedding(V, 32) |> sine_positions
  y = ids    |> embedding(V, 32) |> sine_positions
  body = transformer(1, 2, 32, pre_norm = yes, mask = seen, rate = 0.1)
  looks = attention_weights(y |> as[N, T, 1, 32], x |> as[N, S, 1, 32], mask = seen)
  scores = body(x, y) |> linear(V)
  scores, looks
}

train Translate {
  data   pairs("a.txt", "b.txt", bucket = 4) batch 8 shuffle
  validation pairs("c.txt", "d.txt", bucket = 4)
  loss   cross_entropy(Translate(source, source_length, ids), next, mask = mask)
  metric accuracy(Translate(source, source_length, ids), next, mask = mask)
  optim  adam(lr = 5e-3)
  epochs 40
  seed   3
}
"#;

/// Sentences for validation: fewer letters than in all, and no whole number of batches.
const VALIDATION: usize = 19;

/// Every letter stands for the next one, and sentences have 1 to 10 of them.
fn sentences() -> (Vec<String>, Vec<String>) {
    let sentence = |k: usize, first: u8| -> String {
        let letters = (0..1 + k % 10)
            .map(|i| first + ((k * 2_654_435 + i * 40_503 + k * i * i * 97) % 7919 % 7) as u8);
        letters.map(char::from).collect()
    };
    let all = |first| (0..300).map(|k| sentence(k, first)).collect();
    (all(b'a'), all(b'b'))
}

struct Setup {
    dir: TempDir,
    module: Module,
}

impl Setup {
    fn new() -> Setup {
        Setup::of(MODEL)
    }

    fn of(model: &str) -> Setup {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = sentences();
        let write = |name: &str, lines: &[String]| {
            std::fs::write(dir.path().join(name), lines.join("\n")).unwrap();
        };
        write("a.txt", &from);
        write("b.txt", &to);
        write("c.txt", &from[..VALIDATION]);
        write("d.txt", &to[..VALIDATION]);
        let file = dir.path().join("model.dl");
        std::fs::write(&file, model).unwrap();
        let module = Compiler::new().threads(1).compile_file(&file).unwrap();
        Setup { dir, module }
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("model.dl")
    }

    /// Trains into a folder; interrupted after so many steps, if at all.
    fn train(&self, run: &str, resume: bool, interrupt_at: Option<u64>) -> (StopReason, Vec<u64>) {
        let interrupt = Arc::new(AtomicBool::new(false));
        let out = Some(self.dir.path().join(run));
        let options =
            TrainOptions { out, resume, interrupt: interrupt.clone(), ..TrainOptions::default() };
        let mut losses = Vec::new();
        let mut observer = |event: &Event<'_>| {
            if let Event::Start { validation_samples, .. } = event {
                assert_eq!(*validation_samples, VALIDATION);
            }
            if let Event::Step { metrics, step, .. } = event {
                losses.push(metrics.loss().to_bits());
                if interrupt_at == Some(*step) {
                    interrupt.store(true, Ordering::Relaxed);
                }
            }
        };
        let trained =
            dlc::train(&self.module, "Translate", &self.file(), &options, &mut observer).unwrap();
        (trained.summary.reason, losses)
    }

    fn weights(&self, run: &str) -> WeightsFile {
        WeightsFile::new(self.dir.path().join(run).join("weights.safetensors"))
    }

    fn translate(
        &self,
        model: &str,
        sentences: &[&str],
        beams: Option<Beams>,
    ) -> Result<Vec<String>, dlc::Error> {
        let options = GenerateOptions { tokens: 20, beams, ..GenerateOptions::default() };
        let mut keep_on = |_| ControlFlow::Continue(());
        let weights = self.weights("run");
        dlc::translate(&self.module, model, &weights, sentences, &options, &mut keep_on)
    }

    /// What the command prints.
    fn command(&self, args: &[&str]) -> String {
        let mut command = assert_cmd::Command::cargo_bin("dlc").unwrap();
        let command =
            command.current_dir(self.dir.path()).args(["generate", "model.dl", "--threads"]);
        let command = command.args(["1", "--weights", "run/weights.safetensors"]).args(args);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    fn commands_translate_measure_and_draw(&self) {
        let file = ["--model", "Translate", "--input", "c.txt", "--beam", "2"];
        let lines = self.command(&file);
        assert_eq!(lines.lines().count(), VALIDATION);
        let measured = self.command(&[&file[..], &["--reference", "d.txt", "--json"]].concat());
        let measured: serde_json::Value = serde_json::from_str(&measured).unwrap();
        let translations = measured["translations"].as_array().unwrap();
        assert!(translations.iter().zip(lines.lines()).all(|(a, b)| a.as_str() == Some(b)));
        let reference = std::fs::read_to_string(self.dir.path().join("d.txt")).unwrap();
        let bleu = dlc::Bleu::of(lines.lines().zip(reference.lines()));
        assert_eq!(measured["bleu"]["score"].as_f64(), Some(bleu.score));

        let draw = ["--model", "Looking", "--prompt", "abc", "--attention", "looks.png"];
        let translation = self.command(&draw);
        let picture = image::open(self.dir.path().join("looks.png")).unwrap().into_rgb8();
        // Squares of 24 pixels for `abc<end>` and the translation, `<end>` being the longest label.
        let (across, down) = (5 * 8 + 24 + 4 * 24 + 12, 5 * 8 + 8 + 36 + 12);
        let rows = translation.trim().len() as u32 + 1;
        assert_eq!(picture.dimensions(), (across, down + rows * 24));
    }

    fn attention_is_of_the_translation(&self, translation: &str) {
        let weights = self.weights("run");
        let options =
            GenerateOptions { prompt: "gfedcba".into(), tokens: 20, ..GenerateOptions::default() };
        let looks = dlc::attention(&self.module, "Looking", &weights, &options).unwrap();
        assert_eq!(looks.source.concat(), "gfedcba<end>");
        assert_eq!(looks.target.concat(), format!("{translation}<end>"));
        assert_eq!(looks.heads.len(), 1);
        for row in looks.heads[0].chunks(looks.source.len()) {
            assert!((row.iter().sum::<f32>() - 1.0).abs() < 1e-5, "{row:?}");
        }
        let error = dlc::attention(&self.module, "Translate", &weights, &options).unwrap_err();
        assert!(error.to_string().contains("does not tell where it looks"), "{error}");
    }

    /// `Write` keeps keys and values, of 24 positions, of beams that change places; `Short` of 4.
    fn memory_changes_nothing(&self, sentences: &[&str], greedy: &[String]) {
        assert_eq!(self.translate("Write", sentences, None).unwrap(), greedy);
        for count in [2, 5] {
            let beams = Some(Beams { count, length_penalty: 1.0 });
            let whole = self.translate("Translate", sentences, beams).unwrap();
            assert_eq!(self.translate("Write", sentences, beams).unwrap(), whole);
        }
        let cut = greedy.iter().map(|text| text.chars().take(4).collect::<String>());
        assert_eq!(self.translate("Short", sentences, None).unwrap(), cut.collect::<Vec<_>>());
    }

    /// The likeliest next id again and again, by whole runs of the model.
    fn by_whole_runs(&self, weights: &Weights, sentence: &str) -> String {
        let vocabulary: &Vocabulary = weights.vocabulary().unwrap();
        let mut source = vocabulary.encode(sentence).unwrap();
        source.push(END);
        let (from, width) = (source.len(), vocabulary.len());
        let length = Tensor::i32([1], vec![from as i32]);
        let source = Tensor::i32([1, from], source);
        let mut ids = vec![END];
        while ids.len() <= 20 {
            let (to, v) = (ids.len() as i64, width as i64);
            let sizes = [("N", 1), ("S", from as i64), ("T", to), ("V", v)];
            let network = self.module.model("Translate").unwrap().bind(sizes).unwrap();
            let network = network.load(&self.weights("run").path).unwrap();
            let given = Tensor::i32([1, ids.len()], ids.clone());
            let inputs = [("source", &source), ("source_length", &length), ("ids", &given)];
            let scores = network.run(&inputs).unwrap();
            let last = &scores[0].as_f32().unwrap()[(ids.len() - 1) * width..];
            let best = (0..width).reduce(|a, b| if last[b] > last[a] { b } else { a }).unwrap();
            if best as i32 == END {
                break;
            }
            ids.push(best as i32);
        }
        vocabulary.decode(&ids[1..])
    }
}

#[test]
fn it_learns_goes_on_to_the_bit_and_translates() {
    let setup = Setup::new();
    let (reason, whole) = setup.train("run", false, None);
    assert_eq!(reason, StopReason::Finished);
    let (reason, mut parts) = setup.train("parts", false, Some(40));
    assert_eq!((reason, parts.len()), (StopReason::Interrupted, 40));
    parts.extend(setup.train("parts", true, None).1);
    assert!(whole == parts, "an interrupted run goes on as if nothing had happened");

    let new = ["abc", "gfedcba", "a", "bbbbbbb", "cagdbea", "gg"];
    let greedy = setup.translate("Translate", &new, None).unwrap();
    let weights = setup.weights("run").read().unwrap();
    let expected: Vec<String> = new.iter().map(|s| setup.by_whole_runs(&weights, s)).collect();
    assert_eq!(greedy, expected);
    let right = |s: &&str| s.bytes().map(|b| char::from(b + 1)).collect::<String>();
    let rights = new.iter().zip(&greedy).filter(|(s, t)| right(s) == **t).count();
    assert!(rights >= 3, "{greedy:?}");

    assert_eq!(setup.translate("Named", &new, None).unwrap(), greedy);
    assert_eq!(setup.translate("Translate", &["", "a", " "], None).unwrap(), ["", "b", ""]);
    let one = Some(Beams { count: 1, length_penalty: 1.0 });
    assert_eq!(setup.translate("Translate", &new, one).unwrap(), greedy);
    setup.memory_changes_nothing(&new, &greedy);
    setup.attention_is_of_the_translation(&greedy[1]);
    setup.commands_translate_measure_and_draw();
    let refused = setup.translate("Seeing", &new, None).unwrap_err().to_string();
    assert!(refused.contains("not causal"), "{refused}");
}

/// The source has letters that the target has not, and the other way round.
#[test]
fn each_language_has_a_vocabulary_of_its_own() {
    let (first, rest) = MODEL.split_once("model Named").unwrap();
    let (_, section) = rest.split_once("train Translate").unwrap();
    let model = format!("{first}\ntrain Translate{section}")
        .replace("x = source |> embedding(V, 32)", "x = source |> embedding(U, 32)")
        .replace("-> f32[N, T, V] {", "-> f32[N, T, V] where U >= 1 {")
        .replace("\"b.txt\", bucket = 4)", "\"b.txt\", bucket = 4, joint = no)");
    let setup = Setup::of(&model);
    setup.train("run", false, None);
    let weights = setup.weights("run").read().unwrap();
    let vocabulary = weights.vocabulary().unwrap();
    // Seven letters and the mark.
    assert_eq!((vocabulary.source_size(), vocabulary.len()), (Some(8), 8));
    assert_eq!(vocabulary.of_sources().encode("ag").unwrap(), [1, 7]);
    assert_eq!(vocabulary.encode("bh").unwrap(), [1, 7]);
    assert!(vocabulary.encode("a").is_err(), "no translation has that letter");

    let new = ["abc", "gfedcba", "a", "bbbbbbb", "cagdbea", "gg"];
    let greedy = setup.translate("Translate", &new, None).unwrap();
    let right = |s: &&str| s.bytes().map(|b| char::from(b + 1)).collect::<String>();
    let rights = new.iter().zip(&greedy).filter(|(s, t)| right(s) == **t).count();
    assert!(rights >= 3, "{greedy:?}");
    let printed = setup.command(&["--prompt", "abc"]);
    assert_eq!(printed.trim(), greedy[0]);
    let refused = setup.translate("Translate", &["h"], None).unwrap_err().to_string();
    assert!(refused.contains("'h' is not in the vocabulary"), "{refused}");
}

/// The encoder's last state begins the decoder; both are [1, N, H].
const RECURRENT: &str = r#"
block Parts(V, first = 0.0, at = 0)(source: i32[N, S], source_length: i32[N], ids: i32[N, T]) {
  x, read = source |> embedding(V, 16) |> gru(24, lengths = source_length, states = yes)
  seen = read + (x |> mean_value(lengths = source_length) |> unsqueeze[0])
  y, last = ids |> embedding(V, 16) |> gru(24, states = yes, h0 = first if at > 0 else seen)
  y |> linear(V), last
}

model Translate(source: i32[N, S], source_length: i32[N], ids: i32[N, T]) -> f32[N, T, V] {
  parts = named["*"](Parts(V))
  y, _ = parts(source, source_length, ids)
  y
}

model Write(source: i32[N, S], source_length: i32[N], ids: i32[N, T], at: i32[])
  -> f32[N, T, V]
{
  state h = zeros[1, N, 24]
  parts = named["*"](Parts(V, first = h, at = at))
  y, last = parts(source, source_length, ids)
  h <- last
  y
}
"#;

#[test]
fn recurrent_states_of_sentences_are_found_in_any_dim() {
    let section = MODEL.split_once("train Translate").unwrap().1.replace("epochs 40", "epochs 4");
    let setup = Setup::of(&format!("{RECURRENT}\ntrain Translate{section}"));
    setup.train("run", false, None);
    let new = ["abc", "gfedcba", "a", "bbbbbbb", "cagdbea", "gg"];
    for count in [1, 2, 5] {
        let beams = Some(Beams { count, length_penalty: 1.0 });
        let whole = setup.translate("Translate", &new, beams).unwrap();
        assert!(whole.iter().any(|text| !text.is_empty()));
        assert_eq!(setup.translate("Write", &new, beams).unwrap(), whole);
        let alone = setup.translate("Write", &new[..1], beams).unwrap();
        assert_eq!(alone, whole[..1]);
    }
}
