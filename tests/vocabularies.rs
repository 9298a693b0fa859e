//! What ids stand for is what the weights' file says, whatever else a text would teach.

use dlc::{Compiler, Error, Evaluated, Module, TrainOptions, Vocabulary, WeightsFile};
use dlc::{evaluate, train};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

const MODEL: &str = r#"
model Lm(ids: i32[N, T]) -> f32[N, T, V] { ids |> embedding(V, 8) |> gru(8) |> linear(V) }

train Lm {
  data  text("a.txt", T = 16) batch 8 shuffle
  loss  cross_entropy(Lm(ids), next)
  optim adam(lr = 1e-2)
  epochs 2
}
"#;

struct Trained {
    dir: TempDir,
    module: Module,
    file: PathBuf,
    loss: f64,
}

/// A text that has one `!`, in the part that is not for validation.
fn text() -> String {
    format!("oh!{}", "the quick brown fox jumps over the lazy dog.\n".repeat(20))
}

fn trained() -> Trained {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("a.txt"), text()).unwrap();
    let file = dir.path().join("model.dl");
    std::fs::write(&file, MODEL).unwrap();
    let module = Compiler::new().threads(1).compile_file(&file).unwrap();
    let out = Some(dir.path().join("run"));
    let options = TrainOptions { out, ..TrainOptions::default() };
    let trained =
        train(&module, "Lm", &file, &options, &mut |_: &dlc_train::Event<'_>| {}).unwrap();
    let loss = trained.test.unwrap().1.loss();
    Trained { dir, module, file, loss }
}

impl Trained {
    fn weights(&self) -> WeightsFile {
        WeightsFile::new(self.dir.path().join("run/weights.safetensors"))
    }

    /// The loss on another text.
    fn evaluate(&self, text: &str) -> Result<Evaluated, Error> {
        let path = self.dir.path().join("b.txt");
        std::fs::write(&path, text).unwrap();
        let data = vec![("text".to_owned(), path)];
        let options = TrainOptions { data, ..TrainOptions::default() };
        evaluate(&self.module, "Lm", Path::new(&self.file), &self.weights(), &options)
    }
}

/// A tenth of nine lines is none.
#[test]
fn without_samples_to_measure_nothing_is_said() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("a.txt"), "ab\n".repeat(9)).unwrap();
    let section = "lines(\"a.txt\") batch 4";
    let model = MODEL.replace("text(\"a.txt\", T = 16) batch 8", section);
    std::fs::write(dir.path().join("model.dl"), model).unwrap();
    let dlc = |args: &[&str]| {
        let mut command = assert_cmd::Command::cargo_bin("dlc").unwrap();
        let output = command.current_dir(dir.path()).args(args).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), text(&output.stdout) + &text(&output.stderr))
    };
    let (code, said) = dlc(&["train", "model.dl", "--out", "run"]);
    assert!(code == Some(0) && !said.contains("validation") && !said.contains("NaN"), "{said}");
    let (code, said) = dlc(&["eval", "model.dl", "--weights", "run/weights.safetensors"]);
    assert!(code == Some(1) && said.contains("no samples for testing"), "{said}");
}

#[test]
fn a_model_is_measured_with_its_own_vocabulary() {
    let trained = trained();
    let without = trained.evaluate(&text().replace('!', "z")).unwrap();
    assert_eq!(without.metrics.loss(), trained.loss);
    let Err(unknown) = trained.evaluate(&text().replace('!', "~")) else { panic!("it has `~`") };
    let unknown = unknown.to_string();
    assert!(unknown.contains("b.txt` does not fit: the character '~' is not in"), "{unknown}");
    assert!(unknown.contains("model.dl:5:"), "{unknown}");
}

const KINDS: &str = r#"
model Kind(ids: i32[N, T]) -> f32[N, K] where V >= 1 {
  ids |> embedding(V, 8) |> mean[1] |> linear(K)
}

train Kind {
  data  sequences("a.csv") batch 6 shuffle
  loss  cross_entropy(Kind(ids), label)
  optim adam(lr = 0.1)
  epochs 20
}
"#;

/// A table of 20 sequences of each of these classes, which are `x`, `y` and `z` only.
fn table(classes: &str) -> String {
    let rows = classes.chars().flat_map(|class| vec![format!("{class},{class}{class}\n"); 20]);
    "class,sequence\n".to_owned() + &rows.collect::<String>()
}

/// With classes numbered by what a table has, `z` would be taken for `x`.
#[test]
fn labels_stand_for_the_classes_of_training() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    std::fs::write(at("a.csv"), table("xyz")).unwrap();
    std::fs::write(at("z.csv"), table("z")).unwrap();
    let quiet = &mut |_: &dlc_train::Event<'_>| {};
    let compiler = Compiler::new().threads(1);
    let with = "batch 6 shuffle\n  validation sequences(\"z.csv\")";
    for text in [KINDS.to_owned(), KINDS.replace("batch 6 shuffle", with)] {
        let module = compiler.compile_text("model.dl", &text).unwrap();
        let options = TrainOptions { out: Some(at("run")), ..TrainOptions::default() };
        let trained = train(&module, "Kind", &at("model.dl"), &options, quiet).unwrap();
        assert!(trained.test.unwrap().1.loss() < 0.1);
        let data = vec![("sequences".to_owned(), at("z.csv"))];
        let options = TrainOptions { data, ..TrainOptions::default() };
        let weights = WeightsFile::new(at("run/weights.safetensors"));
        let other = evaluate(&module, "Kind", &at("model.dl"), &weights, &options).unwrap();
        assert!(other.metrics.loss() < 0.1);
        std::fs::remove_dir_all(at("run")).unwrap();
    }
}

#[test]
fn a_vocabulary_may_be_given() {
    let trained = trained();
    let dir = trained.dir.path();
    std::fs::write(dir.join("b.txt"), "oh dear!\n".repeat(40)).unwrap();
    let compile = |data: &str| {
        let source = MODEL.replace("text(\"a.txt\", T = 16)", data);
        Compiler::new().threads(1).compile_text("model.dl", &source).unwrap()
    };
    let train = |data: &str, run: &str| {
        let options = TrainOptions { out: Some(dir.join(run)), ..TrainOptions::default() };
        let observer = &mut |_: &dlc_train::Event<'_>| {};
        train(&compile(data), "Lm", &dir.join("model.dl"), &options, observer)
    };
    let given = "text(\"b.txt\", T = 16, vocabulary = \"run/weights.safetensors\")";
    train(given, "next").unwrap();
    let words = |run: &str| Vocabulary::read(&dir.join(run).join("weights.safetensors")).unwrap();
    assert_eq!(words("next"), words("run"));

    let refused = |data: &str| train(data, "none").err().unwrap().to_string();
    let unmarked = refused(&given.replace("text", "lines"));
    assert!(unmarked.contains("no mark that ends a line"), "{unmarked}");
    let missing = refused(&given.replace("run/", "away/"));
    assert!(missing.contains("away/weights.safetensors` does not exist"), "{missing}");
    assert!(missing.contains("model.dl:5:"), "{missing}");
    let both = refused(&given.replace("T = 16", "T = 16, bpe = 300"));
    assert!(both.contains("`bpe` says how a vocabulary is learned"), "{both}");
    let number = refused(&given.replace("\"run/weights.safetensors\"", "3"));
    assert!(number.contains("`vocabulary` is the path of a weights' file, not"), "{number}");
}
