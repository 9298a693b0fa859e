//! Text in, text out: training on a small file, then generation with and without memory.

use dlc::{Compiler, GenerateOptions, Generated, Module, Sampling, TrainOptions, WeightsFile};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::process::Command;
use tempfile::TempDir;

/// `Lm` computes all anew, and so does `Free`, which no section gives a `T`; `Step` keeps keys and values of 48 positions from call to call.
const MODEL: &str = r#"
block remember(room)(x: [N, T, D], at: i32[]) -> [N, room, D] {
  state rows: [N, room, D] = 0
  place[c < room] = c
  first = place[at]
  last  = place[at + T - 1]
  y[n, c < room, d] = x[n, max(min(c - first, T - 1), 0), d] where c >= first and c <= last
    else rows[n, c, d]
  rows <- y
  y
}

block Body(room, V)(ids: i32[N, T], at: i32[]) -> [N, T, V] {
  param E: [V, 16] ~ normal(0.0, 0.3)
  x[n, t, d] = E[ids[n, t], d]
  q = x |> linear(16)
  k = x |> linear(16)
  v = x |> linear(16)
  if room > 0 {
    k = k |> remember(room)(at)
    v = v |> remember(room)(at)
  }
  s[n, t, u] = sum[c] q[n, t, c] * k[n, u, c]  where u <= t + at else -inf
  p = s |> softmax[u]
  o[n, t, c] = sum[u] p[n, t, u] * v[n, u, c]
  (x + o) |> layer_norm |> linear(V)
}

model Lm(ids: i32[N, T]) -> f32[N, T, V] {
  body = Body(0, V)
  body(ids, 0)
}

model Step(ids: i32[N, T], at: i32[]) -> f32[N, T, V] {
  body = Body(48, V)
  body(ids, at)
}

model Free(ids: i32[N, T]) -> f32[N, T, V] {
  body = Body(0, V)
  body(ids, 0)
}

model Last(ids: i32[N, T]) -> f32[N, V] {
  body = Body(0, V)
  y = body(ids, 0)
  y[:, T - 1]
}

train Lm {
  data text("fox.txt", T = 48, stride = 7) batch 8 shuffle
  loss cross_entropy(Lm(ids), next)
  optim adam(lr = 1e-2)
  epochs 3
}
"#;

struct Trained {
    dir: TempDir,
    module: Module,
    weights: WeightsFile,
}

/// The same of the library's blocks: `Whole`, and `Write` with rooms.
const GPT: &str = r#"
block Body(V, room = 0, at = 0)(ids: i32[N, T]) -> [N, T, V] {
  ids
    |> embedding(V, 16) |> learned_positions(48, room, at)
    |> gpt_block(2, room, at, rate = 0.0) |> llama_block(4, 24, 2, room, at)
    |> layer_norm |> linear(V)
}

model Whole(ids: i32[N, T]) -> f32[N, T, V] { ids |> Body(V) }
model Write(ids: i32[N, T], at: i32[]) -> f32[N, T, V] { ids |> Body(V, room = 48, at = at) }
model Many(ids: i32[N, T], at: i32[N]) -> f32[N, T, V] { ids |> Body(V, room = 48, at = at) }
model Tag(ids: i32[N, T], lengths: i32[N]) -> f32[N, T, V] {
  y[n, t, v] = Body(V)(ids)[n, t, v] where t < lengths[n] else 0
  y
}

train Whole {
  data text("fox.txt", T = 48, stride = 7) batch 8 shuffle
  loss cross_entropy(Whole(ids), next)
  optim adam(lr = 1e-2)
  epochs 1
}
"#;

/// A recurrent model: `Lm` computes all anew, the others keep its state.
const GRU: &str = r#"
block Body(V, first = 0.0)(ids: i32[N, T]) {
  h, last = ids |> embedding(V, 12) |> gru(24, states = yes, h0 = first)
  h |> linear(V), last
}

model Lm(ids: i32[N, T]) -> f32[N, T, V] {
  y, _ = ids |> Body(V)
  y
}

model One(ids: i32[N, T], at: i32[]) -> f32[N, T, V] {
  state h = zeros[1, N, 24]
  y, last = ids |> Body(V, first = h if at > 0 else 0)
  h <- last
  y
}

model Many(ids: i32[N, T], at: i32[N]) -> f32[N, T, V] {
  state h = zeros[1, N, 24]
  y, last = ids |> Body(V, first = h if (at |> unsqueeze[-1]) > 0 else 0)
  h <- last
  y
}

model Joint(ids: i32[N, T], at: i32[N]) -> f32[N, T, V] {
  state calls = 0.0
  calls <- calls + 1
  y, _ = ids |> Body(V)
  y + 0.0 * calls
}

train Lm {
  data text("fox.txt", T = 48, stride = 7) batch 8 shuffle
  loss cross_entropy(Lm(ids), next)
  optim adam(lr = 1e-2)
  epochs 2
}
"#;

fn trained(source: &str, model: &str) -> Trained {
    let dir = tempfile::tempdir().unwrap();
    let text = "the quick brown fox jumps over the lazy dog.\n".repeat(40);
    std::fs::write(dir.path().join("fox.txt"), text).unwrap();
    let file: PathBuf = dir.path().join("model.dl");
    std::fs::write(&file, source).unwrap();
    let module = Compiler::new().threads(1).compile_file(&file).unwrap();
    let out = Some(dir.path().join("run"));
    let options = TrainOptions { out, ..TrainOptions::default() };
    let trained =
        dlc::train(&module, model, &file, &options, &mut |_: &dlc_train::Event<'_>| {}).unwrap();
    assert_eq!(trained.test.unwrap().0, "validation");
    let weights = WeightsFile::new(dir.path().join("run/weights.safetensors"));
    Trained { dir, module, weights }
}

fn asked(prompt: &str, tokens: usize) -> GenerateOptions {
    GenerateOptions { prompt: prompt.into(), tokens, ..GenerateOptions::default() }
}

/// Twenty ids, drawn from the likeliest.
fn drawn(prompt: &str) -> GenerateOptions {
    let sampling = Sampling { top_k: Some(5), seed: 3, ..Sampling::default() };
    GenerateOptions { sampling, ..asked(prompt, 20) }
}

impl Trained {
    fn generate(&self, model: &str, options: &GenerateOptions) -> Result<Generated, dlc::Error> {
        let mut streamed = String::new();
        let mut sink = |text: &str| {
            streamed.push_str(text);
            ControlFlow::Continue(())
        };
        let generated = dlc::generate(&self.module, model, &self.weights, options, &mut sink)?;
        assert_eq!(streamed, generated.text);
        Ok(generated)
    }

    /// The model that is asked if none is named.
    fn chosen(&self) -> Result<String, dlc::Error> {
        let file = self.weights.read().unwrap();
        dlc::generating_model(&self.module, file.vocabulary(), &dlc::Bindings::new())
    }

    fn refused(&self, model: &str, options: &GenerateOptions) -> String {
        self.generate(model, options).unwrap_err().to_string()
    }
}

/// Rooms of 5 and of 1, and a size that is to be given.
const SMALL: &str = r#"
block Body(V, D = 16, room = 0, at = 0)(ids: i32[N, T]) -> [N, T, V] {
  ids |> embedding(V, D) |> gpt_block(4, room, at, rate = 0.0) |> linear(V)
}

model Lm(ids: i32[N, T]) -> f32[N, T, V] { ids |> Body(V) }
model Five(ids: i32[N, T], at: i32[]) -> f32[N, T, V] { ids |> Body(V, room = 5, at = at) }
model Single(ids: i32[N, T], at: i32[]) -> f32[N, T, V] { ids |> Body(V, room = 1, at = at) }
model Open(ids: i32[N, T], at: i32[N]) -> f32[N, T, V]
where D >= 4 {
  ids |> Body(V, D = D, room = 5, at = at)
}

train Lm {
  data text("fox.txt", T = 5) batch 8 shuffle
  loss cross_entropy(Lm(ids), next)
  optim adam(lr = 1e-2)
  epochs 1
}
"#;

#[test]
fn rooms_may_be_smaller_than_a_chunk_and_sizes_given() {
    let trained = trained(SMALL, "Lm");
    let ids =
        |model: &str, options: &GenerateOptions| trained.generate(model, options).unwrap().ids;
    let greedy = Sampling { temperature: 0.0, ..Sampling::default() };
    let asked = |tokens| GenerateOptions { sampling: greedy, ..asked("th", tokens) };
    assert_eq!(ids("Five", &asked(4)), ids("Lm", &asked(4)));
    assert_eq!((ids("Five", &asked(20)).len(), ids("Single", &asked(20)).len()), (20, 20));
    let bindings = dlc::Bindings::from([("D".into(), 16)]);
    let given = GenerateOptions { bindings, ..asked(4) };
    assert_eq!(ids("Open", &given), ids("Lm", &asked(4)));
    let missing = trained.refused("Open", &asked(4));
    assert!(missing.contains("--bind D=") && missing.contains("model.dl:"), "{missing}");
}

#[test]
fn memory_changes_nothing_and_mistakes_are_told() {
    let trained = trained(MODEL, "Lm");
    assert_eq!(trained.chosen().unwrap(), "Step");
    // Prompts of less than a chunk, of whole chunks, and of chunks and single ids.
    for prompt in ["t", "the quick brown ", "the quick brown fox jum"] {
        let drawn = drawn(prompt);
        let [whole, step, free] =
            ["Lm", "Step", "Free"].map(|model| trained.generate(model, &drawn).unwrap());
        assert_eq!(whole.ids, free.ids);
        assert_eq!((whole.ids.len(), &whole.ids), (20, &step.ids), "after {prompt:?}");
    }
    let beams = GenerateOptions {
        beams: Some(dlc::Beams { count: 3, length_penalty: 1.0 }),
        ..asked("the ", 6)
    };
    let (whole, step) = (trained.generate("Lm", &beams), trained.generate("Step", &beams));
    assert_eq!(whole.unwrap().ids, step.unwrap().ids);

    assert!(trained.refused("Lm", &asked("THE", 1)).contains("character 'T' is not in"));
    assert!(trained.refused("Last", &asked("the", 1)).contains("give it with --bind T=SIZE"));
    // What there is no room for is forgotten, the oldest ids first.
    for model in ["Lm", "Step"] {
        assert_eq!(trained.generate(model, &asked("the", 60)).unwrap().ids.len(), 60, "{model}");
    }

    // The command gives several texts, with a seed of its own each.
    let output = Command::new(env!("CARGO_BIN_EXE_dlc"))
        .current_dir(trained.dir.path())
        .args(["generate", "model.dl", "--weights", "run/weights.safetensors", "--prompt", "the "])
        .args(["--tokens", "9", "--seed", "7", "--count", "3"])
        .output()
        .unwrap();
    let text = |seed: i32| {
        let sampling = Sampling { seed, ..Sampling::default() };
        let options = GenerateOptions { sampling, ..asked("the ", 9) };
        format!("the {}\n", trained.generate("Step", &options).unwrap().text)
    };
    assert_eq!(String::from_utf8(output.stdout).unwrap(), (7..10).map(text).collect::<String>());
}

/// Keys and values that are remembered are those of the whole text.
#[test]
fn blocks_of_the_library_remember() {
    let trained = trained(GPT, "Whole");
    let several = trained.chosen().unwrap_err().to_string();
    assert!(several.contains("(Write, Many)"), "{several}");
    let tag = trained.refused("Tag", &asked("the ", 1));
    assert!(tag.contains("a position, i32[], or one for each"), "{tag}");
    for prompt in ["t", "the quick brown ", "the quick brown fox jum"] {
        let drawn = drawn(prompt);
        let [whole, step] =
            ["Whole", "Write"].map(|model| trained.generate(model, &drawn).unwrap().ids);
        assert_eq!(whole, step, "after {prompt:?}");
    }
    // When the room is full, it goes on from the newer half.
    let greedy = |model: &str, prompt: &str, tokens| {
        let sampling = Sampling { temperature: 0.0, ..Sampling::default() };
        let options = GenerateOptions { sampling, ..asked(prompt, tokens) };
        trained.generate(model, &options).unwrap()
    };
    let prompt = "the quick brown fox jumps over the lazy dog.\nthe";
    assert_eq!(prompt.len(), 48);
    let newer: String = prompt.chars().skip(24).collect();
    let long = greedy("Write", prompt, 20);
    let next = greedy("Write", prompt, 1).text;
    assert_eq!(long.text, next.clone() + &greedy("Write", &(newer + &next), 19).text);
    prompts_of_several_lengths_are_continued_together(&trained);
}

/// Each text is that of the model with one position: drawn, searched for, too long for the room.
fn prompts_of_several_lengths_are_continued_together(trained: &Trained) {
    let long = "the quick brown fox jumps over the lazy dog.\nthe";
    let prompts = ["t", "the quick brown fox jum", "the ", long, "the quick brown "];
    let greedy = Sampling { temperature: 0.0, ..Sampling::default() };
    let beams = Some(dlc::Beams { count: 3, length_penalty: 1.0 });
    for options in [
        GenerateOptions { sampling: greedy, ..asked("", 20) },
        drawn(""),
        GenerateOptions { beams, ..asked("", 6) },
    ] {
        let [one, many] = ["Write", "Many"].map(|model| {
            let mut keep_on = |_| ControlFlow::Continue(());
            let (module, weights) = (&trained.module, &trained.weights);
            dlc::continue_texts(module, model, weights, &prompts, &options, &mut keep_on).unwrap()
        });
        assert_eq!(one, many);
        let seed = options.sampling.seed + 1;
        let second = GenerateOptions {
            prompt: prompts[1].into(),
            sampling: Sampling { seed, ..options.sampling },
            ..options.clone()
        };
        assert_eq!(trained.generate("Many", &second).unwrap().text, many[1]);
    }
    std::fs::write(trained.dir.path().join("prompts.txt"), prompts[..3].join("\n")).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_dlc"))
        .current_dir(trained.dir.path())
        .args(["generate", "model.dl", "--weights", "run/weights.safetensors", "--model", "Many"])
        .args(["--tokens", "5", "--temperature", "0", "--input", "prompts.txt"])
        .output()
        .unwrap();
    let options = GenerateOptions { sampling: greedy, ..asked("", 5) };
    let text = |prompt: &&str| {
        let options = GenerateOptions { prompt: (*prompt).into(), ..options.clone() };
        format!("{prompt}{}\n", trained.generate("Write", &options).unwrap().text)
    };
    let wanted: String = prompts[..3].iter().map(text).collect();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), wanted);
}

/// States that every call moves on follow their sequence: drawn, searched for, several at a time, in
/// turns.
#[test]
fn recurrent_states_follow_their_sequence() {
    let trained = trained(GRU, "Lm");
    let prompts = ["t", "the quick brown fox jum", "the ", "over the lazy dog", "the quick brown "];
    let greedy = Sampling { temperature: 0.0, ..Sampling::default() };
    let beams = Some(dlc::Beams { count: 4, length_penalty: 1.0 });
    for options in [
        GenerateOptions { sampling: greedy, ..asked("", 20) },
        drawn(""),
        GenerateOptions { beams, ..asked("", 9) },
    ] {
        let [anew, one, many] = ["Lm", "One", "Many"].map(|model| {
            let mut keep_on = |_| ControlFlow::Continue(());
            let (module, weights) = (&trained.module, &trained.weights);
            dlc::continue_texts(module, model, weights, &prompts, &options, &mut keep_on).unwrap()
        });
        assert_eq!((&one, &many), (&anew, &anew), "{options:?}");
        let options = GenerateOptions { prompt: "the quick brown fox jum".into(), ..options };
        let [anew, one, many] =
            ["Lm", "One", "Many"].map(|model| trained.generate(model, &options).unwrap().ids);
        assert_eq!((&one, &many), (&anew, &anew), "{options:?}");
    }
    let options = GenerateOptions { beams, ..asked("the ", 3) };
    let refused = trained.refused("Joint", &options);
    assert!(refused.contains("`calls` of `Joint` does not tell"), "{refused}");
}

/// The recurrent examples, on a small text.
#[test]
fn recurrent_examples_remember() {
    for (name, model) in [("lstm", "CharLstm"), ("gru", "Names")] {
        let file = format!("{}/../../examples/{name}.dl", env!("CARGO_MANIFEST_DIR"));
        let source = std::fs::read_to_string(file).unwrap();
        let small = [("data/tinyshakespeare.txt", "fox.txt"), ("data/names.txt", "fox.txt")];
        let small = small.iter().chain(&[("T=64", "T=48"), ("256", "48"), ("128", "48")]);
        let source = small.fold(source, |text, (own, other)| text.replace(own, other));
        let trained = trained(&source.replace("batch 64", "batch 8"), model);
        assert_eq!(trained.chosen().unwrap(), "Write");
        let prompt = if name == "gru" { "the" } else { "the quick brown fox jum" };
        let beams = Some(dlc::Beams { count: 4, length_penalty: 1.0 });
        for options in [drawn(prompt), GenerateOptions { beams, ..asked(prompt, 9) }] {
            let anew = trained.generate(model, &options).unwrap();
            assert_eq!(trained.generate("Write", &options).unwrap().ids, anew.ids, "{name}");
        }
    }
}
