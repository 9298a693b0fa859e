//! One message per kind of mistake: the source above what the user reads.

mod common;

use common::{messages, parse};
use dlc_front::{Code, Sources, Style, render};
use std::path::Path;

/// Each source above its messages.
fn show(sources: &[&str]) -> String {
    let rule = "-".repeat(72);
    let shown = sources.iter().map(|text| {
        let messages = messages(text);
        assert!(!messages.is_empty(), "no error in {text}");
        format!("{}\n\n{messages}", text.trim_end().replace('\r', "<CR>").replace('\0', "<NUL>"))
    });
    shown.collect::<Vec<_>>().join(&format!("{rule}\n"))
}

/// A block with this body.
fn body(text: &str) -> String {
    format!("block f(x) {{\n  {text}\n}}\n")
}

fn show_bodies(texts: &[&str]) -> String {
    let bodies: Vec<String> = texts.iter().map(|text| body(text)).collect();
    show(&bodies.iter().map(String::as_str).collect::<Vec<_>>())
}

#[test]
fn characters() {
    insta::assert_snapshot!(show_bodies(&[
        "y = \0\0 x",
        "y = x\r  z = y",
        "y = x  # \u{202E}drow",
        "data = “x.csv”",
        "у = x + 1",
        "y = λ – 1",
        "y = x ≤ 1 ? 字",
        "y = a && b || !c",
        "y = x /* no */",
        "y = \u{A0}x\u{200B}",
    ]));
}

#[test]
fn strings() {
    insta::assert_snapshot!(show_bodies(&["d = csv(\"x.csv)", r#"d = csv("C:\data")"#]));
}

#[test]
fn numbers() {
    insta::assert_snapshot!(show_bodies(&[
        "conv(6, 5x, 3abc)",
        "y = 2n + 1_ + 0x1F + 1e",
        "y = 3. + .5 + blocks.3",
        "y = 1e999 + 99_999_999_999_999_999_999",
    ]));
}

#[test]
fn brackets() {
    insta::assert_snapshot!(show(&[
        "block f(x) {\n  y = (x + 1\n  y\n}\n",
        "block f(x) {\n  y = x + 1)\n  y\n}\n",
        "block f(x) {\n  y = (x + 1]\n  y\n}\n",
        "block f(x) {\n  repeat 3 {\n    x |> relu\n}\n\nblock g(x) { x }\n",
        "model A(x) {\n  x\n",
        "model A(x) {\n  f(x\n}\n\ntrain A { seed 1 }\n",
    ]));
}

#[test]
fn items() {
    insta::assert_snapshot!(show(&[
        "modell LeNet(x) { x }",
        "x |> relu",
        "model (x) { x }",
        "y[i] = x[i]",
        "5",
    ]));
}

#[test]
fn headers() {
    insta::assert_snapshot!(show(&[
        "block f { x }",
        "block f(x: f32[N,, 1]) { x }",
        "block f(x) -> { x }",
        "block f(x) x",
        "block f(C: i32, dyn r)(dyn x) { x }",
        "block where(x) { x }",
    ]));
}

#[test]
fn statements() {
    insta::assert_snapshot!(show_bodies(&[
        "y = x +\n  z",
        "y = x |>",
        "y = f(x z)",
        "y = x z",
        "param W [3] ~ normal",
        "state s",
        "f(x) = 3",
        "y[2*n] = x[n]",
        "if x = 3 { y }",
        "for k in { y }",
        "let if = 3",
        "y = x |> f + 1",
        "y = a if b",
        "y = { x }",
        "+ x",
        "y = \"a\" \"b\"",
    ]));
}

#[test]
fn expressions() {
    insta::assert_snapshot!(show_bodies(&[
        "y = a < b < c",
        "y = conv(pad = 2, 6)",
        "y[n] = sum[2] x[n]",
        "y = x.[3]",
        "y = x[1 2]",
        "x |> fc: linear(8) |> relu",
    ]));
}

#[test]
fn train_sections() {
    insta::assert_snapshot!(show(&[
        "train Net {\n  data mnist(\"d\")\n  epoch 10\n  los mse(y, z)\n  banana 3\n}\n",
        "train Net {\n  stop after 3 epochs\n  seed\n  data mnist(\"d\") batch\n}\n",
        "train Net { data mnist(\"d\") of 64 }",
        "expect { params == 3 }",
        "expect Net { params = 3 }",
    ]));
}

#[test]
fn several_errors_in_one_run() {
    insta::assert_snapshot!(show(&["
block a(x) {
  y = x +
  z = (y * ]
  w = y z
}

block b(x) {
  repeat 2 {
    q = 5x
    r = = 3
  }
  s = ) 3
}

block c(x) {
  y = x *
  repeat 2 { y = x / }
  z = 1 2
}
"]));
}

#[test]
fn a_statement_with_an_error_does_not_hide_those_after_it() {
    let (ast, diagnostics, _) = parse("let a = 1\nblock f(x) { + }\nblock g(x) { x }");
    assert_eq!(diagnostics.len(), 1);
    assert_eq!(ast.items.len(), 2, "the items without errors are kept");
    assert!(ast.def("g").is_some());
}

#[test]
fn bytes() {
    let mut shown = String::new();
    let utf16: Vec<u8> = "model".encode_utf16().flat_map(u16::to_le_bytes).collect();
    let with_mark = [&[0xFF, 0xFE], utf16.as_slice()].concat();
    for bytes in [b"let a = \"\xE9t\xE9\"\n".as_slice(), &with_mark, b"let a = 1 # \xF0\x9F"] {
        let mut sources = Sources::new();
        let diagnostic = *sources.add_bytes("model.dl", bytes).expect_err("not UTF-8");
        shown += &render(&[diagnostic], &sources, Style::Plain);
        shown.push('\n');
    }
    insta::assert_snapshot!(shown);
    let large = vec![b' '; dlc_front::source::MAX_SOURCE_BYTES + 1];
    let mut sources = Sources::new();
    let refused = sources.add_bytes("model.dl", &large).expect_err("too large");
    insta::assert_snapshot!("too_large", render(&[*refused], &sources, Style::Plain));
    assert!(Sources::new().add_bytes("model.dl", &large[1..]).is_ok());
}

#[test]
fn limits() {
    let codes = |text: &str| {
        let (_, diagnostics, _) = parse(text);
        diagnostics.iter().map(|diagnostic| diagnostic.code).collect::<Vec<_>>()
    };
    let nested = |open: &str, n: usize, close: &str| {
        body(&format!("{}x{}", open.repeat(n), close.repeat(n)))
    };
    assert_eq!(codes(&nested("(", 255, ")")), []);
    assert_eq!(codes(&nested("(", 256, ")")), [Code::NestingTooDeep]);
    assert_eq!(codes(&nested("f(", 100_000, ")")), [Code::NestingTooDeep]);
    assert_eq!(codes(&nested("- ", 2000, "")), []);
    assert_eq!(codes(&nested("- ", 100_000, "")), [Code::NestingTooDeep]);
    assert_eq!(codes(&nested("sum[i] ", 100_000, "")), [Code::NestingTooDeep]);
    assert_eq!(codes(&nested("", 100_000, ".a")), [Code::NestingTooDeep]);
    assert_eq!(codes(&nested("", 100_000, " if c else x")), [Code::NestingTooDeep]);
    assert_eq!(codes(&nested("", 100_000, " + x * x")), []);
    assert_eq!(codes(&nested("", 100_000, " |> f")), []);
    let long = "a".repeat(10_000);
    assert_eq!(codes(&body(&long)), [Code::NameTooLong]);
    assert_eq!(codes(&body(&long[..255])), []);
    assert_eq!(codes(&body(&"x + ".repeat(600_000))), [Code::TextTooComplex]);
    assert_eq!(codes(&"?\n".repeat(1000)).last(), Some(&Code::TooManyErrors));
    assert_eq!(codes(&"let a\n".repeat(1000)).len(), 52);
    let last = |text: &str| {
        let (_, mut diagnostics, sources) = parse(text);
        diagnostics.drain(..diagnostics.len() - 1);
        render(&diagnostics, &sources, Style::Plain)
    };
    let texts =
        [body(&long), nested("(", 256, ")"), body(&"x + ".repeat(600_000)), "?\n".repeat(1000)];
    insta::assert_snapshot!(texts.map(|text| last(&text)).join("\n"));
}

/// The snapshots of all tests of this crate, in one text.
fn snapshots() -> String {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let folders = ["snapshots", "elaborate/snapshots"].map(|f| tests.join(f).read_dir().unwrap());
    let files = folders.into_iter().flatten().map(|entry| entry.unwrap().path());
    files.map(|file| std::fs::read_to_string(file).unwrap()).collect()
}

#[test]
fn every_code_has_a_message_in_a_snapshot() {
    let snapshots = snapshots();
    let shown = |code: &Code| {
        ["error", "warning"].iter().any(|s| snapshots.contains(&format!("{s}[{}]", code.as_str())))
    };
    let unseen: Vec<_> = Code::ALL.iter().filter(|code| !shown(code)).collect();
    assert!(unseen.is_empty(), "no snapshot shows {unseen:?}");
}

#[test]
fn one_long_line_is_cut_when_shown() {
    let text = body(&format!("y = {} + + )", "x + ".repeat(200_000)));
    let shown = messages(&text);
    insta::assert_snapshot!(shown);
}
