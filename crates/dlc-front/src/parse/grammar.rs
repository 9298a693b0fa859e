//! The grammar, compiled in.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};

use pest::Parser;
use pest::error::Error;
use pest::iterators::{Pair, Pairs};

#[derive(pest_derive::Parser)]
#[grammar = "../../../grammar/dl.pest"]
struct Grammar;

/// A node of the concrete syntax.
pub(super) type Node<'a> = Pair<'a, Rule>;

/// Recognizes one item, laid out.
pub(super) fn recognize(text: &str) -> Result<Pairs<'_, Rule>, Box<Error<Rule>>> {
    raise_call_limit(text.len());
    Grammar::parse(Rule::item, text).map_err(Box::new)
}

/// How many parser calls a text may take: several times what the worst text takes
/// (`the_grammar_is_linear` measures it). The limit is the process's, so it only ever rises.
fn raise_call_limit(bytes: usize) {
    const CALLS: usize = 1_000_000;
    const CALLS_PER_BYTE: usize = 2_000;
    static LIMIT: AtomicUsize = AtomicUsize::new(0);
    let needed = CALLS + bytes.saturating_mul(CALLS_PER_BYTE);
    if LIMIT.fetch_max(needed, Ordering::SeqCst) < needed {
        pest::set_call_limit(NonZeroUsize::new(LIMIT.load(Ordering::SeqCst)));
    }
}
