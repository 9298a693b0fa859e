//! What becomes of kernels from pass to pass, for explanations.
//!
//! A pass puts kernels in the place of others, in order. So what is new stands for the kernels that are
//! gone from its place, or else was made for the next one that is still there.

use dlc_kernel::{Entry, Kernel, Made, Program};
use std::collections::BTreeMap;

/// The kernels so far, and how those came about that the first program has not.
pub struct Trail {
    /// By entry.
    kernels: Vec<Vec<Known>>,
    made: Vec<BTreeMap<String, Made>>,
}

/// What is compared of a kernel.
struct Known {
    name: String,
    form: &'static str,
}

impl Known {
    fn all(entry: &Entry) -> Vec<Known> {
        let known = |k: &Kernel| Known { name: k.name.clone(), form: k.form.name() };
        entry.kernels.iter().map(known).collect()
    }
}

impl Trail {
    /// The trail of a program that nothing has changed yet.
    pub fn new(program: &Program) -> Trail {
        let made = program.entries.iter().map(|_| BTreeMap::new()).collect();
        Trail { kernels: program.entries.iter().map(Known::all).collect(), made }
    }

    /// Notes what a pass did, which made `program` of the one before.
    pub fn follow(&mut self, program: &Program, words: &'static str) {
        for ((entry, before), made) in
            program.entries.iter().zip(&mut self.kernels).zip(&mut self.made)
        {
            let after = Known::all(entry);
            for (name, of) in changed(before, &after) {
                made.insert(name, Made { words, of });
            }
            *before = after;
        }
    }

    /// By entry and name.
    pub fn made(self) -> Vec<BTreeMap<String, Made>> {
        self.made
    }
}

/// The kernels that are new or of another form, with those that they do the work of.
fn changed(before: &[Known], after: &[Known]) -> Vec<(String, Vec<String>)> {
    let place = |name: &str| before.iter().position(|k| k.name == name);
    let remains = |k: &&Known| after.iter().any(|a| a.name == k.name);
    let (mut found, mut new, mut next) = (Vec::new(), Vec::new(), 0);
    let gone = |from: usize, to: usize| -> Vec<String> {
        let between = before[from.min(to)..to].iter();
        between.filter(|k| !remains(k)).map(|k| k.name.clone()).collect()
    };
    for kernel in after {
        let Some(at) = place(&kernel.name) else {
            new.push(kernel.name.clone());
            continue;
        };
        let of = Some(gone(next, at)).filter(|gone| !gone.is_empty());
        let of = of.unwrap_or_else(|| vec![kernel.name.clone()]);
        found.extend(new.drain(..).map(|name| (name, of.clone())));
        if before[at].form != kernel.form {
            found.push((kernel.name.clone(), vec![kernel.name.clone()]));
        }
        next = at + 1;
    }
    let of = gone(next, before.len());
    found.extend(new.into_iter().map(|name| (name, of.clone())));
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_new_stands_for_what_is_gone_or_serves_the_next() {
        let kernels = |all: &str| -> Vec<Known> {
            let known = |(name, form): (&str, &'static str)| Known { name: name.into(), form };
            all.split(' ').map(|k| known((k.trim_end_matches('!'), form(k)))).collect()
        };
        let found = changed(&kernels("a b c d"), &kernels("a_pad a! bc d x"));
        let of = |name: &str| &found.iter().find(|f| f.0 == name).expect("it is new").1;
        assert_eq!(found.len(), 4);
        assert_eq!((of("a_pad"), of("a")), (&vec!["a".to_owned()], &vec!["a".to_owned()]));
        assert_eq!(of("bc"), &["b", "c"].map(String::from));
        assert!(of("x").is_empty(), "it serves none");
    }

    fn form(kernel: &str) -> &'static str {
        if kernel.ends_with('!') { "map" } else { "contract" }
    }
}
