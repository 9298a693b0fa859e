//! What a character outside ASCII was probably meant to be.

/// The ASCII text that looks like `character` or is its usual spelling; empty for characters that
/// show nothing.
pub(super) fn ascii_twin(character: char) -> Option<String> {
    if let '\u{FF01}'..='\u{FF5E}' = character {
        let plain = u32::from(character) - 0xFF01 + 0x21;
        return char::from_u32(plain).map(String::from);
    }
    let table = [LOOKALIKES, SYMBOLS, GREEK, BLANKS];
    let mut entries = table.iter().flat_map(|part| part.iter());
    entries
        .find(|(set, _)| set.contains(character))
        .map(|(set, plain)| twin_at(set, plain, character))
}

/// An entry maps every character of a set to one text, or, if both have the same number of
/// characters, the first to the first and so on.
fn twin_at(set: &str, plain: &str, character: char) -> String {
    let position = set.chars().position(|c| c == character);
    match set.chars().count() == plain.chars().count() {
        true => position.and_then(|at| plain.chars().nth(at)).map(String::from).unwrap_or_default(),
        false => plain.to_owned(),
    }
}

type Entries = &'static [(&'static str, &'static str)];

const LOOKALIKES: Entries = &[
    ("аеорсухіјѕһԁԛԝ", "aeopcyxijshdqw"),
    ("АВЕКМНОРСТХІЈЅ", "ABEKMHOPCTXIJS"),
    ("ΑΒΕΖΗΙΚΜΝΟΡΤΥΧ", "ABEZHIKMNOPTYX"),
];

const SYMBOLS: Entries = &[
    ("“”„‟«»", "\""),
    ("‘’‚‛′", "'"),
    ("‐‑‒–—―−", "-"),
    ("∗·⋅•", "*"),
    ("×", "x"),
    ("÷∕", "/"),
    ("≤", "<="),
    ("≥", ">="),
    ("≠", "!="),
    ("→", "->"),
    ("←", "<-"),
    ("∞", "inf"),
    ("…", ".."),
    ("∑", "sum"),
    ("√", "sqrt"),
    ("；", ";"),
];

const GREEK: Entries = &[
    ("α", "alpha"),
    ("β", "beta"),
    ("γ", "gamma"),
    ("δ", "delta"),
    ("ε", "epsilon"),
    ("η", "eta"),
    ("θ", "theta"),
    ("λ", "lambda"),
    ("μµ", "mu"),
    ("ν", "nu"),
    ("π", "pi"),
    ("ρ", "rho"),
    ("σ", "sigma"),
    ("τ", "tau"),
    ("φ", "phi"),
    ("ω", "omega"),
    ("Σ", "Sigma"),
];

const BLANKS: Entries = &[
    ("\u{A0}\u{2002}\u{2003}\u{2009}\u{202F}\u{3000}", " "),
    ("\u{200B}\u{200C}\u{200D}\u{2060}\u{FEFF}\u{AD}", ""),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn look_alikes_have_their_ascii_twin() {
        let twin = |c| ascii_twin(c).expect("in the table");
        assert_eq!(twin('с'), "c");
        assert_eq!(twin('Ν'), "N");
        assert_eq!(twin('”'), "\"");
        assert_eq!(twin('≤'), "<=");
        assert_eq!(twin('ａ'), "a");
        assert_eq!(twin('\u{A0}'), " ");
        assert_eq!(twin('\u{200B}'), "");
        assert_eq!(ascii_twin('字'), None);
    }

    #[test]
    fn paired_sets_are_as_long_as_their_twins() {
        for (set, plain) in LOOKALIKES {
            assert_eq!(set.chars().count(), plain.chars().count(), "{set}");
        }
    }
}
