//! Text from a stream of tokens: never half a character, never half a stop string.

/// Turns bytes into text as they arrive.
#[derive(Clone, Debug, Default)]
pub struct Detokenizer {
    held: Vec<u8>,
}

impl Detokenizer {
    /// Nothing held back.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a token's bytes; returns the text that is certain now. Bytes that can become no
    /// character turn into U+FFFD.
    pub fn push(&mut self, bytes: &[u8]) -> String {
        self.held.extend_from_slice(bytes);
        let mut text = String::new();
        let mut kept = 0;
        let mut chunks = self.held.utf8_chunks().peekable();
        while let Some(chunk) = chunks.next() {
            text.push_str(chunk.valid());
            let broken = chunk.invalid();
            // Only the last bytes can be a character that is not whole yet.
            let open = || std::str::from_utf8(broken).is_err_and(|e| e.error_len().is_none());
            if chunks.peek().is_none() && !broken.is_empty() && open() {
                kept = broken.len();
            } else if !broken.is_empty() {
                text.push(char::REPLACEMENT_CHARACTER);
            }
        }
        self.held.drain(..self.held.len() - kept);
        text
    }

    /// What is left when no more comes.
    pub fn finish(&mut self) -> String {
        let rest = String::from_utf8_lossy(&self.held).into_owned();
        self.held.clear();
        rest
    }
}

/// Holds back text that may become a stop string.
#[derive(Clone, Debug)]
pub struct StopFilter {
    stops: Vec<String>,
    held: String,
}

impl StopFilter {
    /// Stops at any of these; empty ones are ignored.
    pub fn new(stops: &[String]) -> Self {
        Self {
            stops: stops.iter().filter(|s| !s.is_empty()).cloned().collect(),
            held: String::new(),
        }
    }

    /// Adds text; returns what is certain to come before any stop, and whether a stop was met,
    /// after which nothing more belongs to the answer.
    pub fn push(&mut self, text: &str) -> (String, bool) {
        self.held.push_str(text);
        let found = self
            .stops
            .iter()
            .filter_map(|s| self.held.find(s.as_str()))
            .min();
        if let Some(at) = found {
            self.held.truncate(at);
            return (std::mem::take(&mut self.held), true);
        }
        // The longest end of the text that a stop begins with.
        let begins = |at: usize| self.stops.iter().any(|s| s.starts_with(&self.held[at..]));
        let keep = self
            .held
            .char_indices()
            .map(|(at, _)| at)
            .find(|at| begins(*at));
        let rest = self.held.split_off(keep.unwrap_or(self.held.len()));
        (std::mem::replace(&mut self.held, rest), false)
    }

    /// What was held back, when no more comes.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_come_whole() {
        let mut d = Detokenizer::new();
        let text = "a€🙂z";
        let mut out = String::new();
        for byte in text.bytes() {
            let piece = d.push(&[byte]);
            assert!(piece.chars().count() <= 1);
            out.push_str(&piece);
        }
        assert_eq!(out + &d.finish(), text);
    }

    #[test]
    fn bad_bytes_become_replacements() {
        let mut d = Detokenizer::new();
        assert_eq!(d.push(&[0xff, b'a', 0xe2, 0x82]), "\u{fffd}a");
        assert_eq!(d.push(b"b"), "\u{fffd}b");
        assert_eq!(d.push(&[0xf0, 0x9f]), "");
        assert_eq!(d.finish(), "\u{fffd}");
    }

    #[test]
    fn stops_are_found_across_pieces() {
        let mut f = StopFilter::new(&["END".into(), "\n\n".into()]);
        assert_eq!(f.push("one E"), ("one ".into(), false));
        assert_eq!(f.push("N"), (String::new(), false));
        assert_eq!(f.push("T"), ("ENT".into(), false));
        assert_eq!(f.push("x\n"), ("x".into(), false));
        assert_eq!(f.push("\ny"), (String::new(), true));
    }
}
