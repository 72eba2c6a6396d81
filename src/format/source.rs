//! Where a checkpoint's bytes come from: a mapped file, or memory.

use crate::error::FileProblem;
use crate::{Error, Result};
use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

/// The bytes of one checkpoint file.
///
/// A further kind (ranges over HTTP) is a further variant here; nothing above knows the kinds,
/// and bytes are borrowed where they can be.
#[derive(Clone, Debug)]
pub struct Source {
    name: String,
    kind: Kind,
}

#[derive(Clone)]
enum Kind {
    #[cfg(not(target_arch = "wasm32"))]
    Mapped(Arc<memmap2::Mmap>),
    Memory(Arc<Vec<u8>>),
}

impl std::fmt::Debug for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            #[cfg(not(target_arch = "wasm32"))]
            Self::Mapped(map) => write!(f, "Mapped({} bytes)", map.len()),
            Self::Memory(bytes) => write!(f, "Memory({} bytes)", bytes.len()),
        }
    }
}

impl Source {
    /// Maps a file. Its pages come into memory as they are read, and leave by [`Source::release`].
    ///
    /// The file must not be shortened while it is mapped: reading a page that is gone ends the
    /// process, as with every program that maps files.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be opened or mapped, [`Error::File`] if it is empty or no file.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn open(path: &std::path::Path) -> Result<Self> {
        let name = path.display().to_string();
        let io = |action| {
            let path = path.to_owned();
            move |source| Error::Io {
                action,
                path,
                source,
            }
        };
        let problem = |problem| Error::File {
            file: path.display().to_string(),
            problem,
        };
        let file = std::fs::File::open(path).map_err(io("read"))?;
        let about = file.metadata().map_err(io("read"))?;
        if !about.is_file() {
            return Err(problem(FileProblem::NotAFile));
        }
        if about.len() == 0 {
            return Err(problem(FileProblem::Empty));
        }
        #[expect(unsafe_code, reason = "a mapped file has no safe constructor")]
        // SAFETY: the map is read-only and private, and is only ever handed out as shared slices
        // of plain bytes, for which any content is valid. What remains is another program
        // changing the file in the meantime: the documented condition of this function.
        let map = unsafe { memmap2::Mmap::map(&file) }.map_err(io("map"))?;
        Ok(Self {
            name,
            kind: Kind::Mapped(Arc::new(map)),
        })
    }

    /// Bytes in memory, under a name for messages.
    pub fn memory(name: impl Into<String>, bytes: Vec<u8>) -> Self {
        Self {
            name: name.into(),
            kind: Kind::Memory(Arc::new(bytes)),
        }
    }

    /// The file's path, or what stands for it in messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Length in bytes.
    #[expect(
        clippy::len_without_is_empty,
        reason = "a source is a file, not a list"
    )]
    pub fn len(&self) -> u64 {
        self.all().len() as u64
    }

    /// The bytes of a range, borrowed where they are in memory or mapped.
    ///
    /// # Errors
    /// [`Error::File`] if the range goes past the end.
    pub fn bytes(&self, range: Range<u64>) -> Result<Cow<'_, [u8]>> {
        let slice = usize::try_from(range.start)
            .ok()
            .zip(usize::try_from(range.end).ok())
            .and_then(|(start, end)| self.all().get(start..end));
        slice.map(Cow::Borrowed).ok_or_else(|| Error::File {
            file: self.name.clone(),
            problem: FileProblem::Truncated {
                what: "a tensor".into(),
                want: range.end,
                bytes: self.len(),
            },
        })
    }

    /// Says that a range will not be read again soon, so that a mapped file's pages leave memory.
    /// Reading it again works, and takes as long as the first time. Elsewhere does nothing.
    pub fn release(&self, range: Range<u64>) {
        #[cfg(all(unix, not(target_arch = "wasm32")))]
        if let Kind::Mapped(map) = &self.kind {
            let end = range.end.min(map.len() as u64);
            let start = range.start.min(end);
            #[expect(unsafe_code, reason = "memmap2 has no safe call for dropping pages")]
            // SAFETY: the map is a read-only private mapping of a file, so that dropped pages are
            // read from the file again, with the same bytes; the range lies within the map.
            let dropped = unsafe {
                map.unchecked_advise_range(
                    memmap2::UncheckedAdvice::DontNeed,
                    start as usize,
                    (end - start) as usize,
                )
            };
            // Memory that stays a little longer is no failure.
            if let Err(error) = dropped {
                log::debug!("{}: pages {start}..{end} stay: {error}", self.name);
            }
        }
        #[cfg(not(all(unix, not(target_arch = "wasm32"))))]
        let _ = range;
    }

    fn all(&self) -> &[u8] {
        match &self.kind {
            #[cfg(not(target_arch = "wasm32"))]
            Kind::Mapped(map) => map,
            Kind::Memory(bytes) => bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use std::io::Write as _;

    #[test]
    fn ranges_never_panic() {
        let source = Source::memory("x", vec![1, 2, 3]);
        assert_eq!(&*source.bytes(1..3).unwrap(), [2, 3]);
        assert!(source.bytes(3..3).unwrap().is_empty());
        #[expect(clippy::reversed_empty_ranges, reason = "hostile ranges")]
        for range in [2..4, 3..2, 9..9, 0..u64::MAX, u64::MAX..u64::MAX] {
            assert!(source.bytes(range.clone()).is_err(), "{range:?}");
            source.release(range);
        }
    }

    #[test]
    fn released_pages_leave_memory_and_come_back() {
        const BYTES: usize = 64 << 20;
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&vec![7; BYTES]).unwrap();
        let source = Source::open(file.path()).unwrap();
        let sum = || {
            let bytes = source.bytes(0..BYTES as u64).unwrap();
            bytes.iter().map(|&byte| u64::from(byte)).sum::<u64>()
        };
        assert_eq!(sum(), 7 * BYTES as u64);
        let before = resident_file_bytes();
        #[expect(clippy::reversed_empty_ranges, reason = "hostile ranges")]
        for range in [5..u64::MAX, 9..3, u64::MAX..u64::MAX] {
            source.release(range);
        }
        // Other tests run in this process too: most of the file is enough.
        if let Some((before, after)) = before.zip(resident_file_bytes()) {
            assert!(before > after + BYTES as u64 / 2, "{before} to {after}");
        }
        assert_eq!(sum(), 7 * BYTES as u64);
    }

    /// Resident bytes that belong to files, where the system says so.
    fn resident_file_bytes() -> Option<u64> {
        let status = std::fs::read_to_string("/proc/self/status").ok()?;
        let line = status.lines().find(|line| line.starts_with("RssFile:"))?;
        let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
        Some(kib * 1024)
    }
}
