//! Vocabularies: text to numbers and back.
//!
//! The marks (`<end>`, `<start>`) have the first ids, the units of text follow: characters in the
//! order of their code points, or the pieces of a byte-pair encoding. Whoever has a model's weights
//! needs its vocabulary, so it travels in the metadata of the weights' file.

use crate::data::bpe::Bpe;
use crate::{Error, FileProblem, Weights};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::path::Path;

/// What the ids of a model stand for, and its labels.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vocabulary {
    /// What stands for no text: the ends of a line.
    marks: Vec<String>,
    units: Units,
    /// Of sources, where they have one of their own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    source: Option<Box<Vocabulary>>,
    /// What labels stand for, where samples have one each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    classes: Vec<String>,
}

/// The units of text that have ids.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Units {
    Characters(Vec<char>),
    Pieces(Bpe),
}

/// How a vocabulary is made of a text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unit {
    /// Each character is a unit.
    #[default]
    Character,
    /// Pieces of a byte-pair encoding with so many pieces in all, the 256 bytes included.
    Piece(usize),
}

/// The id of the mark at the ends of a line, where a vocabulary has it.
pub const END: i32 = 0;

impl Vocabulary {
    /// The vocabulary of some texts, with these marks.
    ///
    /// # Errors
    /// If a byte-pair encoding of fewer than 256 pieces is asked for.
    pub fn of<'t>(
        texts: impl Iterator<Item = &'t str> + Clone,
        unit: Unit,
        marks: &[&str],
    ) -> Result<Vocabulary, Error> {
        let units = match unit {
            Unit::Character => {
                let all: BTreeSet<char> = texts.flat_map(str::chars).collect();
                Units::Characters(all.into_iter().collect())
            }
            Unit::Piece(pieces) => Units::Pieces(Bpe::train(texts, pieces)?),
        };
        let marks = marks.iter().map(|&m| m.to_owned()).collect();
        Ok(Vocabulary { marks, units, source: None, classes: Vec::new() })
    }

    /// The vocabulary that a weights' file holds.
    ///
    /// # Errors
    /// If it is no such file, or holds none.
    pub fn read(path: &Path) -> Result<Vocabulary, Error> {
        let none = || FileProblem::Content("holds no vocabulary".into()).at(path);
        Weights::read(path)?.vocabulary().cloned().ok_or_else(none)
    }

    /// The same, where sources have a vocabulary of their own.
    pub fn with_source(self, source: Vocabulary) -> Vocabulary {
        Vocabulary { source: Some(Box::new(source)), ..self }
    }

    /// What the ids of sources stand for, which is the same if they have none of their own.
    pub fn of_sources(&self) -> &Vocabulary {
        self.source.as_deref().unwrap_or(self)
    }

    /// How many ids sources have, where they have a vocabulary of their own.
    pub fn source_size(&self) -> Option<usize> {
        self.source.as_ref().map(|source| source.len())
    }

    /// The same, where labels stand for these classes, in this order.
    pub fn with_classes(self, classes: Vec<String>) -> Vocabulary {
        Vocabulary { classes, ..self }
    }

    /// What labels stand for, where samples have one each.
    pub fn classes(&self) -> &[String] {
        &self.classes
    }

    /// How many ids there are.
    pub fn len(&self) -> usize {
        self.marks.len() + self.units.len()
    }

    /// Whether there is no id.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether lines end with [`END`].
    pub fn has_end(&self) -> bool {
        !self.marks.is_empty()
    }

    /// The ids of a text.
    ///
    /// # Errors
    /// If a character is not in the vocabulary.
    pub fn encode(&self, text: &str) -> Result<Vec<i32>, Error> {
        let shift = self.marks.len() as i32;
        match &self.units {
            Units::Characters(known) => {
                let id = |c: char| match known.binary_search(&c) {
                    Ok(at) => Ok(at as i32 + shift),
                    Err(_) => Err(Error::Usage(format!(
                        "the character {c:?} is not in the vocabulary of {} characters",
                        known.len()
                    ))),
                };
                text.chars().map(id).collect()
            }
            Units::Pieces(bpe) => Ok(bpe.encode(text).iter().map(|id| id + shift).collect()),
        }
    }

    /// The bytes that an id stands for: UTF-8, of which a piece may hold a part. None for marks and
    /// for what is no id.
    pub fn bytes(&self, id: i32) -> Vec<u8> {
        let Ok(at) = usize::try_from(i64::from(id) - self.marks.len() as i64) else {
            return Vec::new();
        };
        match &self.units {
            Units::Characters(known) => {
                known.get(at).map(|c| c.to_string().into_bytes()).unwrap_or_default()
            }
            Units::Pieces(bpe) => bpe.piece(at).to_vec(),
        }
    }

    /// The text of some ids; bytes that are no UTF-8 become replacement characters.
    pub fn decode(&self, ids: &[i32]) -> String {
        let bytes: Vec<u8> = ids.iter().flat_map(|&id| self.bytes(id)).collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// As JSON.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("a vocabulary is plain data")
    }

    /// From JSON; `None` if it is not what [`Vocabulary::to_json`] writes.
    pub fn from_json(text: &str) -> Option<Vocabulary> {
        serde_json::from_str(text).ok()
    }
}

impl Units {
    fn len(&self) -> usize {
        match self {
            Units::Characters(known) => known.len(),
            Units::Pieces(bpe) => bpe.len(),
        }
    }
}
