//! What is worth keeping from one run to the next: compiled pipelines and the results of checks.
//!
//! A file that is cut, changed or of another kind is as good as none: it is written again.

use std::path::{Path, PathBuf};

/// Larger than any file of ours: bytes.
const LIMIT: u64 = 256 << 20;
const MAGIC: &[u8; 8] = b"OMNIKEPT";

/// FNV-1a over bytes: the same on every machine and in every version, which `Hash` does not promise.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fnv(u64);

impl Fnv {
    /// Nothing hashed yet.
    pub(crate) const fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    /// With `bytes` hashed, too.
    pub(crate) fn with(mut self, bytes: &[u8]) -> Self {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
        self
    }

    /// The hash.
    pub(crate) const fn get(self) -> u64 {
        self.0
    }
}

/// The folder for such files where a program names none: `gpu` in the folder `OMNIMINI_HOME`, or in
/// OmniMini's place in the platform's cache folder.
pub fn cache_folder() -> Option<PathBuf> {
    #[cfg(all(feature = "hub", not(target_arch = "wasm32")))]
    let home = crate::hub::Home::from_env()
        .ok()
        .map(|home| home.root().to_owned());
    #[cfg(not(all(feature = "hub", not(target_arch = "wasm32"))))]
    let home = std::env::var_os("OMNIMINI_HOME")
        .filter(|value| !value.is_empty())
        .map(PathBuf::from);
    home.map(|home| home.join("gpu"))
}

/// One such file.
#[derive(Clone, Debug)]
pub(crate) struct Kept {
    path: PathBuf,
}

impl Kept {
    /// The file `name` of `folder`; neither need be there.
    pub(crate) fn new(folder: &Path, name: &str) -> Self {
        Self {
            path: folder.join(name),
        }
    }

    /// Its contents, where they are whole.
    pub(crate) fn read(&self) -> Option<Vec<u8>> {
        let size = std::fs::metadata(&self.path).ok()?.len();
        let bytes = (size <= LIMIT).then(|| std::fs::read(&self.path).ok())??;
        let whole = bytes.split_at_checked(16).filter(|(head, body)| {
            head[..8] == *MAGIC && head[8..] == Fnv::new().with(body).get().to_le_bytes()
        });
        if whole.is_none() {
            log::debug!("{} is damaged; it will be made anew", self.path.display());
        }
        whole.map(|(_, body)| body.to_vec())
    }

    /// Replaces it, all at once. That this fails is no failure of the program's.
    pub(crate) fn write(&self, body: &[u8]) {
        if let Err(e) = self.replace(body) {
            log::debug!("{} cannot be kept: {e}", self.path.display());
        }
    }

    fn replace(&self, body: &[u8]) -> std::io::Result<()> {
        static NUMBER: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let part = self
            .path
            .with_extension(format!("{}-{number}.part", std::process::id()));
        if let Some(folder) = self.path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let hash = Fnv::new().with(body).get().to_le_bytes();
        let written = std::fs::write(&part, [&MAGIC[..], &hash, body].concat())
            .and_then(|()| std::fs::rename(&part, &self.path));
        if written.is_err() {
            // Whatever is left of it would only be in the way.
            let _ = std::fs::remove_file(&part);
        }
        written
    }
}

#[cfg(all(test, feature = "hub"))]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn only_whole_files_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let kept = Kept::new(&folder.path().join("new"), "x");
        assert_eq!(kept.read(), None);
        for body in [&b""[..], b"what was kept"] {
            kept.write(body);
            assert_eq!(kept.read().unwrap(), body);
        }
        let good = std::fs::read(&kept.path).unwrap();
        for i in 0..good.len() {
            let mut bad = good.clone();
            bad[i] ^= 0x10;
            std::fs::write(&kept.path, &bad).unwrap();
            assert_eq!(kept.read(), None, "byte {i}");
            std::fs::write(&kept.path, &good[..i]).unwrap();
            assert_eq!(kept.read(), None, "cut at {i}");
        }
        kept.write(b"again");
        assert_eq!(kept.read().unwrap(), b"again");
        let files = std::fs::read_dir(folder.path().join("new"))
            .unwrap()
            .count();
        assert_eq!(files, 1, "no part is left");
    }
}
