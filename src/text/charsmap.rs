//! SentencePiece's compiled table of replacements: a double array over bytes, whose values say
//! where the replacement stands among texts that end in a zero byte.

use unicode_segmentation::UnicodeSegmentation;

use super::unusable;
use crate::error::Result;

/// Bytes of a grapheme that is looked up as a whole, at most.
const WHOLE: usize = 5;

/// A table.
#[derive(Debug)]
pub(super) struct Charsmap {
    units: Vec<u32>,
    texts: Vec<u8>,
    graphemes: bool,
}

/// A unit of the double array: darts-clone's layout.
#[derive(Clone, Copy)]
struct Unit(u32);

impl Unit {
    fn has_leaf(self) -> bool {
        self.0 >> 8 & 1 == 1
    }

    /// The value, of a leaf.
    fn value(self) -> usize {
        (self.0 & 0x7fff_ffff) as usize
    }

    /// The byte that leads here, which no leaf has.
    fn label(self) -> u32 {
        self.0 & 0x8000_00ff
    }

    fn offset(self) -> usize {
        ((self.0 >> 10) << ((self.0 & 0x200) >> 6)) as usize
    }
}

impl Charsmap {
    /// A table from its bytes.
    ///
    /// # Errors
    /// [`crate::Error::Tokenizer`] for bytes that end too early.
    pub(super) fn new(table: &[u8], graphemes: bool) -> Result<Self> {
        let cut = || unusable("its table of replacements (charsmap) ends too early");
        let (size, rest) = table.split_first_chunk::<4>().ok_or_else(cut)?;
        let size = u32::from_le_bytes(*size) as usize;
        let (units, texts) = rest.split_at_checked(size).ok_or_else(cut)?;
        let units = units.as_chunks::<4>().0;
        Ok(Self {
            units: units.iter().map(|unit| u32::from_le_bytes(*unit)).collect(),
            texts: texts.to_vec(),
            graphemes,
        })
    }

    /// Bytes of the longest replacement.
    pub(super) fn longest(&self) -> usize {
        let texts = self.texts.split(|byte| *byte == 0);
        texts.map(<[u8]>::len).max().unwrap_or(0)
    }

    /// A text with its replacements.
    pub(super) fn apply(&self, text: &str) -> String {
        let mut out = String::with_capacity(text.len());
        if self.graphemes {
            for grapheme in text.graphemes(true) {
                let whole = (grapheme.len() <= WHOLE)
                    .then(|| self.prefixes(grapheme).next())
                    .flatten();
                if let Some((_, with)) = whole {
                    out.push_str(with);
                    continue;
                }
                for (at, c) in grapheme.char_indices() {
                    let c = &grapheme[at..at + c.len_utf8()];
                    let with = self.prefixes(c).next();
                    out.push_str(with.map_or(c, |(_, with)| with));
                }
            }
            return out;
        }
        let mut rest = text;
        while let Some(c) = rest.chars().next() {
            // Entries are whole characters: one that is not is damaged, and passed over.
            let found = self
                .prefixes(rest)
                .filter(|(len, _)| rest.is_char_boundary(*len));
            let (len, with) = found
                .last()
                .unwrap_or((c.len_utf8(), &rest[..c.len_utf8()]));
            out.push_str(with);
            rest = &rest[len..];
        }
        out
    }

    /// Entries that `text` begins with, the shortest first: their length and replacement.
    fn prefixes<'s>(&'s self, text: &'s str) -> impl Iterator<Item = (usize, &'s str)> {
        let unit = |at: usize| self.units.get(at).copied().map(Unit);
        let mut bytes = text.bytes().enumerate();
        let mut at = unit(0).map(Unit::offset);
        std::iter::from_fn(move || {
            loop {
                let (i, byte) = bytes.next()?;
                // Darts ends its keys with a zero, so that none has one inside.
                let here = at? ^ usize::from(byte);
                let next = unit(here).filter(|next| byte != 0 && next.label() == u32::from(byte));
                at = next.map(|next| here ^ next.offset());
                let leaf = next.filter(|next| next.has_leaf()).and_then(|_| unit(at?));
                if let Some(with) = leaf.and_then(|leaf| self.text(leaf.value())) {
                    return Some((i + 1, with));
                }
            }
        })
    }

    fn text(&self, at: usize) -> Option<&str> {
        let rest = self.texts.get(at..)?;
        let end = rest.iter().position(|byte| *byte == 0)?;
        std::str::from_utf8(&rest[..end]).ok()
    }
}
