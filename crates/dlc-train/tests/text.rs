//! Text data sets, on small files made here.

use dlc_kernel::{Data, Tensor};
use dlc_train::text::{Pairing, Windows, Words, lines, pairs, windows};
use dlc_train::{Batches, Dataset, Parts, Unit, Vocabulary, chorales, sequences};
use flate2::{Compression, write::GzEncoder};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

fn file(dir: &TempDir, name: &str, contents: &[u8]) -> PathBuf {
    let path = dir.path().join(name);
    fs::write(&path, contents).unwrap();
    path
}

fn zipped(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// One field of all samples.
fn all(data: &Dataset, field: &str) -> Tensor {
    let mut batches = Batches::new(data, &[field], data.len()).unwrap();
    batches.get(0).get(field).unwrap().clone()
}

fn ids(data: &Dataset, field: &str) -> Vec<i32> {
    all(data, field).as_i32().unwrap().to_vec()
}

fn sizes(parts: &Parts) -> Vec<(&'static str, usize)> {
    parts.sizes.clone()
}

const CHARACTERS: Words<'static> = Words::Learned(Unit::Character);

fn characters(length: usize, stride: usize) -> Windows<'static> {
    Windows { length, stride, words: CHARACTERS }
}

#[test]
fn windows_are_neighbours_and_next_is_one_further() {
    let dir = TempDir::new().unwrap();
    let text: String = "abcdefghij".repeat(4);
    let path = file(&dir, "a.txt", text.as_bytes());
    let parts = windows(&path, &characters(3, 5)).unwrap();
    assert_eq!(sizes(&parts), [("T", 3), ("V", 10)]);
    // 36 of 40 characters are for training: windows from 0, 5, .., 30 with one character after.
    assert_eq!(parts.train.len(), 7);
    assert_eq!(ids(&parts.train, "ids")[..6], [0, 1, 2, 5, 6, 7]);
    assert_eq!(ids(&parts.train, "next")[..6], [1, 2, 3, 6, 7, 8]);
    let validation = parts.validation.unwrap();
    assert_eq!(ids(&validation, "ids"), [6, 7, 8]);
    assert_eq!(ids(&validation, "next"), [7, 8, 9]);
    assert_eq!(parts.vocabulary.unwrap().decode(&[7, 4, 0, 3]), "head");
}

#[test]
fn overlapping_windows_may_be_shuffled_and_split() {
    let dir = TempDir::new().unwrap();
    let path = file(&dir, "a.txt", "0123456789".repeat(10).as_bytes());
    let train = windows(&path, &characters(4, 1)).unwrap().train;
    let mut batches = Batches::new(&train, &["ids", "next"], 8).unwrap();
    batches.shuffle(3, 1);
    let batch = batches.get(2);
    let (x, y) = (batch.get("ids").unwrap(), batch.get("next").unwrap());
    let (x, y) = (x.as_i32().unwrap(), y.as_i32().unwrap());
    assert!(x.iter().zip(y).all(|(x, y)| (x + 1) % 10 == *y));
}

#[test]
fn short_broken_and_foreign_texts_are_refused() {
    let dir = TempDir::new().unwrap();
    let message = |bytes: &[u8]| {
        let path = file(&dir, "a.txt", bytes);
        let text = windows(&path, &characters(8, 8)).unwrap_err().to_string();
        text.split_once("a.txt` ").unwrap().1.to_owned()
    };
    let short = "is too short: it has 9 units, 90 are needed (a tenth is for validation)";
    assert_eq!(message(b"123456789"), short);
    assert_eq!(message(b""), short.replace('9', "0").replace("00 are", "90 are"));
    assert_eq!(message(b"abc\xff"), "is not a text in UTF-8: byte 3 is none");
    assert!(message(b"\x89PNG\r\n\x1a\n\xff").starts_with("is a PNG image, not a text"));
    let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:1";
    assert!(message(pointer).contains("run `git lfs pull`"));
    let mut cut = zipped(&[b'a'; 5000]);
    cut.truncate(cut.len() - 9);
    assert!(message(&cut).starts_with("is damaged"), "{}", message(&cut));
}

#[test]
fn lines_begin_and_end_with_the_mark() {
    let dir = TempDir::new().unwrap();
    let path = file(&dir, "names.txt.gz", &zipped("\u{feff}ab\r\n\r\nb\n".as_bytes()));
    let parts = lines(&path, None, None, CHARACTERS).unwrap();
    assert_eq!(sizes(&parts), [("T", 3), ("V", 3)]);
    assert_eq!(ids(&parts.train, "ids"), [0, 1, 2, 0, 2, 0]);
    assert_eq!(ids(&parts.train, "next"), [1, 2, 0, 2, 0, 0]);
    assert_eq!(all(&parts.train, "mask").as_f32().unwrap(), [1., 1., 1., 1., 1., 0.]);
    assert_eq!(ids(&parts.train, "length"), [3, 2]);
    let error = lines(&path, Some(2), None, CHARACTERS).unwrap_err().to_string();
    assert!(error.contains("has the line \"ab\" of 2 units and an end, T is 2"), "{error}");
}

#[test]
fn known_words_must_fit() {
    let dir = TempDir::new().unwrap();
    let path = file(&dir, "a.txt", b"ab\nc\n");
    let known = lines(&path, None, None, CHARACTERS).unwrap().vocabulary.unwrap();
    let message = |path: &Path, known: &Vocabulary| {
        lines(path, None, None, Words::Known(known)).unwrap_err().to_string()
    };
    let other = message(&file(&dir, "b.txt", b"bc\nbd\n"), &known);
    assert!(other.ends_with(
        "b.txt` does not fit: the character 'd' is not in the vocabulary of 3 characters"
    ));
    let unmarked = Vocabulary::of(["abc"].into_iter(), Unit::Character, &[]).unwrap();
    assert_eq!(message(&path, &unmarked), "the vocabulary has no mark that ends a line");
}

#[test]
fn pairs_belong_together() {
    let dir = TempDir::new().unwrap();
    let from = file(&dir, "a.en", b"a b\nabc\nb\n");
    let to = file(&dir, "a.de", b"x\ny\nxy\n");
    let how = Pairing { source: None, target: None, bucket: None, words: CHARACTERS, joint: true };
    let parts = pairs(&from, &to, &how).unwrap();
    // Ids: end, space, a, b, c, x, y.
    assert_eq!(sizes(&parts), [("S", 4), ("T", 3), ("V", 7)]);
    assert_eq!(ids(&parts.train, "source"), [2, 1, 3, 0, 2, 3, 4, 0, 3, 0, 0, 0]);
    assert_eq!(ids(&parts.train, "source_length"), [4, 4, 2]);
    assert_eq!(ids(&parts.train, "ids"), [0, 5, 0, 0, 6, 0, 0, 5, 6]);
    let shorter = Pairing { source: Some(3), ..how };
    let parts = pairs(&from, &to, &shorter).unwrap();
    assert_eq!((parts.train.len(), ids(&parts.train, "source")), (1, vec![3, 0, 0]));
    let other = file(&dir, "b.de", b"x\n");
    let error = pairs(&from, &other, &how).unwrap_err().to_string();
    assert!(error.contains("b.de` has 1 lines, `") && error.ends_with("a.en` has 3"), "{error}");
}

/// Each language has ids of its own, and what is read beside them has the same.
#[test]
fn pairs_may_have_two_vocabularies() {
    let dir = TempDir::new().unwrap();
    let from = file(&dir, "a.en", b"ab\nc\n");
    let to = file(&dir, "a.de", b"x\nya\n");
    let words = CHARACTERS;
    let how = Pairing { source: None, target: None, bucket: None, words, joint: false };
    let parts = pairs(&from, &to, &how).unwrap();
    // Ids: end, a, b, c; end, a, x, y.
    assert_eq!(sizes(&parts), [("S", 3), ("T", 3), ("V", 4), ("U", 4)]);
    assert_eq!(ids(&parts.train, "source"), [1, 2, 0, 3, 0, 0]);
    assert_eq!(ids(&parts.train, "next"), [2, 0, 0, 3, 1, 0]);
    let vocabulary = parts.vocabulary.unwrap();
    assert_eq!(Vocabulary::from_json(&vocabulary.to_json()), Some(vocabulary.clone()));
    assert_eq!(vocabulary.of_sources().decode(&[2, 1]), "ba");
    assert_eq!(vocabulary.decode(&[3, 1]), "ya");

    let (from, to) = (file(&dir, "b.en", b"cab\n"), file(&dir, "b.de", b"axy\n"));
    let how = Pairing { words: Words::Known(&vocabulary), joint: true, ..how };
    let other = pairs(&from, &to, &how).unwrap();
    assert_eq!(ids(&other.train, "source"), [3, 1, 2, 0]);
    assert_eq!(ids(&other.train, "next"), [1, 2, 3, 0]);
    assert_eq!(other.vocabulary, Some(vocabulary));
}

/// Lengths 2, 4 and 5 of the longer side, ends included, in multiples of 2.
#[test]
fn pairs_come_in_batches_of_their_length() {
    let dir = TempDir::new().unwrap();
    let from = file(&dir, "a.en", b"a\nabc\nb\nab\nabcd\nba\n");
    let to = file(&dir, "a.de", b"x\nx\ny\nxyx\nx\nyxy\n");
    let how =
        Pairing { source: None, target: None, bucket: Some(2), words: CHARACTERS, joint: true };
    let data = pairs(&from, &to, &how).unwrap().train;
    assert_eq!(Vec::from_iter(data.lengths()), [2, 4, 6]);
    let mut batches = Batches::new(&data, &["source", "next", "length"], 2).unwrap();
    let mut batch = |k: usize| {
        let batch = batches.get(k);
        let tensor = |name: &str| batch.get(name).unwrap().clone();
        (tensor("source"), tensor("next"), tensor("length"))
    };
    // Samples 0 and 2, then 1 and 3; 5 waits for its like, and joins the longer 4.
    let (source, next, length) = batch(0);
    assert_eq!((source.shape, source.data), (vec![2, 2], Data::I32(vec![1, 0, 2, 0])));
    assert_eq!((next.shape, length.data), (vec![2, 2], Data::I32(vec![2, 2])));
    assert_eq!(batch(1).0.data, Data::I32(vec![1, 2, 3, 0, 1, 2, 0, 0]));
    // The source has 5 places in all, the target 4.
    let (source, next, _) = batch(2);
    assert_eq!((source.shape, next.shape), (vec![2, 5], vec![2, 4]));
    assert_eq!(batches.order(), [0, 2, 1, 3, 5, 4]);
}

#[test]
fn chorales_are_piano_rolls() {
    let dir = TempDir::new().unwrap();
    let json = r#"{"train": [[[21, 108], [-1, 60], [22]]], "valid": [], "test": [[[60]]]}"#;
    let path = file(&dir, "jsb.json", json.as_bytes());
    let parts = chorales(&path, 4).unwrap();
    let roll = all(&parts.train, "notes");
    let sounding = roll.as_f32().unwrap().iter().enumerate().filter(|(_, x)| **x == 1.0);
    let sounding: Vec<(usize, usize)> = sounding.map(|(i, _)| (i / 88, i % 88)).collect();
    assert_eq!(sounding, [(0, 0), (0, 87), (1, 39), (2, 1)]);
    assert_eq!(all(&parts.train, "mask").as_f32().unwrap(), [1., 1., 0., 0.]);
    assert!(parts.test.unwrap().is_empty() && parts.validation.unwrap().is_empty());
    let wrong = file(&dir, "no.json", br#"{"train": [[[20]]]}"#);
    let error = chorales(&wrong, 4).unwrap_err().to_string();
    assert!(error.ends_with("train piece 0, step 0: note 20"), "{error}");
}

#[test]
fn sequences_have_a_length_and_a_class() {
    let dir = TempDir::new().unwrap();
    let table = "class,sequence\n+,gat\n-, ta\n\n+,c\n";
    let parts = sequences(&file(&dir, "dna.csv", table.as_bytes()), None, CHARACTERS).unwrap();
    assert_eq!(sizes(&parts), [("T", 3), ("V", 5), ("K", 2)]);
    let data = &parts.train;
    assert_eq!(ids(data, "ids"), [3, 1, 4, 4, 1, 0, 2, 0, 0]);
    assert_eq!((ids(data, "length"), ids(data, "label")), (vec![3, 2, 1], vec![0, 1, 0]));
    let turned = "sequence,class\ngat,+\nta,-\nc,+\n";
    let turned = sequences(&file(&dir, "dna.csv", turned.as_bytes()), None, CHARACTERS).unwrap();
    assert_eq!((ids(&turned.train, "ids"), sizes(&turned)), (ids(data, "ids"), sizes(&parts)));
    let longer = sequences(&file(&dir, "dna.csv", table.as_bytes()), Some(5), CHARACTERS).unwrap();
    assert_eq!(ids(&longer.train, "ids")[..5], [3, 1, 4, 0, 0]);
    // Another table's labels stand for the same classes, whichever of them it has.
    let vocabulary = parts.vocabulary.unwrap();
    assert_eq!(vocabulary.classes(), ["+", "-"]);
    let read = |table: &str| {
        let path = file(&dir, "other.csv", table.as_bytes());
        sequences(&path, None, Words::Known(&vocabulary))
    };
    let other = read("class,sequence\n-,ta\n").unwrap();
    assert_eq!((ids(&other.train, "label"), other.sizes[2]), (vec![1], ("K", 2)));
    let error = read("class,sequence\n-,ta\n\n?,ta\n").unwrap_err().to_string();
    let problem = "other.csv` has the class `?` in line 4: labels stand for +, -";
    assert!(error.ends_with(problem), "{error}");
    for (table, length, problem) in [
        (table, Some(2), "bad.csv` has a sequence of 3 characters, T is 2"),
        ("class,sequence\n", None, "bad.csv` has no example below its heading"),
        ("class,sequence\n+,ga,t\n", None, "bad.csv` has no class and sequence in line 2"),
        ("class,sequence\n+,g\n+\n", None, "in line 3"),
        ("class,sequence\n+,\"g\"\n", None, "in line 2"),
        ("+,gat\n-,ta\n", None, "begins with \"+,gat\", not with the heading `class,sequence`"),
        ("", None, "begins with \"\", not with the heading"),
    ] {
        let path = file(&dir, "bad.csv", table.as_bytes());
        let error = sequences(&path, length, CHARACTERS).unwrap_err();
        assert!(error.to_string().contains(problem), "{error}");
    }
}
