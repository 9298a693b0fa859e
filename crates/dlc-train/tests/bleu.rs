//! BLEU against the figures of sacreBLEU, which tests/reference/bleu.py wrote.

use dlc_train::Bleu;
use serde_json::Value;
use std::path::Path;

fn texts<'v>(case: &'v Value, key: &str) -> impl Iterator<Item = &'v str> {
    case[key].as_array().unwrap().iter().map(|text| text.as_str().unwrap())
}

/// Both compute in f64, by formulas that differ in order: a few roundings of up to 100.
fn close(a: f64, b: &Value) -> bool {
    (a - b.as_f64().unwrap()).abs() < 1e-11
}

#[test]
fn figures_are_those_of_sacrebleu() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/reference/bleu.json");
    let cases: Vec<Value> = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    assert!(cases.len() > 5);
    for case in cases {
        let bleu = Bleu::of(texts(&case, "translations").zip(texts(&case, "references")));
        let precisions = case["precisions"].as_array().unwrap();
        let same = close(bleu.score, &case["score"])
            && close(bleu.brevity, &case["brevity"])
            && bleu.precisions.iter().zip(precisions).all(|(a, b)| close(*a, b))
            && (bleu.words as u64, bleu.reference_words as u64)
                == (case["words"].as_u64().unwrap(), case["reference_words"].as_u64().unwrap());
        assert!(same, "{}: {bleu:?}, not {case}", case["name"]);
    }
}
