//! docs/library.md names every block of the library, with its arguments as they are.

use std::collections::BTreeSet;
use std::path::Path;

/// What only other blocks of the library use.
const HELPERS: [&str; 19] = [
    "apart",
    "by_group",
    "first_states",
    "flip_steps",
    "grouped_weights",
    "gru_cell",
    "lstm_cell",
    "one_way",
    "overlapped",
    "positions",
    "recurrent",
    "rnn_cell",
    "standardized",
    "state_at",
    "surprise",
    "weighted_mean",
    "weighted_sum",
    "windows",
    "with_slope",
];

/// What stands in the brackets at the start of a text, and what comes after them.
fn brackets(text: &str) -> (String, &str) {
    let mut depth = 0;
    let end = text.find(|c: char| {
        depth += i32::from(c == '(') - i32::from(c == ')');
        depth == 0
    });
    let (inside, rest) = text.split_at(end.expect("brackets are closed"));
    (inside[1..].split_whitespace().collect::<Vec<_>>().join(" "), &rest[1..])
}

/// The first two cells of a block's row: the block with its hyperparameters, and its inputs.
fn row(block: &str) -> String {
    let name = block.split('(').next().expect("a name").trim_end();
    let (first, rest) = brackets(&block[name.len()..]);
    let (hypers, inputs) = match rest.starts_with('(') {
        true => (first.replace("dyn ", ""), brackets(rest).0),
        false => (String::new(), first),
    };
    let hypers = if hypers.is_empty() { hypers } else { format!("({hypers})") };
    let inputs = if inputs.is_empty() { inputs } else { format!("`{inputs}` ") };
    format!("| `{name}{hypers}` | {inputs}|")
}

#[test]
fn every_block_of_the_library_is_documented() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |path: &str| std::fs::read_to_string(root.join(path)).expect(path);
    let sources = ["nn", "rnn", "transformer"].map(|file| read(&format!("src/std/{file}.dl")));
    let text = sources.join("\n");
    let blocks = text.split("\nblock ").skip(1);
    let is_helper = |block: &&str| HELPERS.iter().any(|h| block.split('(').next() == Some(h));
    let expected: BTreeSet<String> = blocks.filter(|b| !is_helper(b)).map(row).collect();
    let page = read("../../docs/library.md");
    let rows = page.lines().filter(|line| line.starts_with("| `"));
    let cells = |line: &str| line.rsplitn(3, '|').last().map(|cells| format!("{cells}|"));
    let found: BTreeSet<String> = rows.filter_map(cells).collect();
    let missing: Vec<_> = expected.difference(&found).collect();
    let wrong: Vec<_> = found.difference(&expected).collect();
    assert!(missing.is_empty() && wrong.is_empty(), "missing: {missing:#?}\nwrong: {wrong:#?}");
}
