//! An archive in the format of tar (POSIX.1-2017, pax, section "ustar Interchange Format"), as far as regular files need it.

use std::io::{self, Write};

/// Bytes of a header, and of what a file's content is filled up to.
const BLOCK: usize = 512;
/// Longest name.
const MAX_NAME: usize = 100;

/// Writes an archive.
pub(super) struct Archive<W: Write> {
    to: W,
    /// When its files changed, in seconds since 1970.
    at: u64,
}

impl<W: Write> Archive<W> {
    /// An archive of files from this time.
    pub(super) const fn new(to: W, at: u64) -> Self {
        Self { to, at }
    }

    /// Adds a file.
    ///
    /// # Errors
    /// It cannot be written, or the name is too long.
    pub(super) fn add(&mut self, name: &str, content: &[u8]) -> io::Result<()> {
        if name.len() > MAX_NAME {
            return Err(io::Error::other(format!(
                "the name {name} is too long for an archive"
            )));
        }
        let mut header = [0; BLOCK];
        let mut put = |at: usize, text: &str| {
            for (to, byte) in header.iter_mut().skip(at).zip(text.bytes()) {
                *to = byte;
            }
        };
        put(0, name);
        put(100, "0000600\0");
        put(108, "0000000\0");
        put(116, "0000000\0");
        put(124, &format!("{:011o}\0", content.len()));
        put(136, &format!("{:011o}\0", self.at));
        // The checksum counts itself as spaces.
        put(148, "        ");
        put(156, "0");
        put(257, "ustar\x0000");
        put(265, "root");
        put(297, "root");
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        for (to, byte) in header.iter_mut().skip(148).zip(format!("{sum:06o}\0 ").bytes()) {
            *to = byte;
        }
        self.to.write_all(&header)?;
        self.to.write_all(content)?;
        let rest = content.len() % BLOCK;
        if rest > 0 {
            self.to.write_all(&vec![0; BLOCK - rest])?;
        }
        Ok(())
    }

    /// Ends the archive.
    ///
    /// # Errors
    /// It cannot be written.
    pub(super) fn finish(mut self) -> io::Result<W> {
        self.to.write_all(&[0; 2 * BLOCK])?;
        self.to.flush()?;
        Ok(self.to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_stand_in_whole_blocks_with_a_checksum() {
        let mut archive = Archive::new(Vec::new(), 0);
        archive.add("a.txt", b"hello").unwrap();
        archive.add("empty", b"").unwrap();
        assert!(archive.add(&"x".repeat(101), b"").is_err());
        let bytes = archive.finish().unwrap();
        assert_eq!(bytes.len(), 5 * BLOCK);
        assert_eq!(&bytes[..5], b"a.txt");
        assert_eq!(&bytes[BLOCK..BLOCK + 6], b"hello\0");
        let header = &bytes[..BLOCK];
        let stated = u32::from_str_radix(std::str::from_utf8(&header[148..154]).unwrap(), 8).unwrap();
        let fields = header[..148].iter().chain(b"        ").chain(&header[156..]);
        assert_eq!(fields.map(|byte| u32::from(*byte)).sum::<u32>(), stated);
    }
}
