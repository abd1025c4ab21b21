//! The HdrHistogram log format, version 1.3, with histograms in the compressed encoding V2, which the tools of
//! <https://github.com/HdrHistogram> read. By hand, since the `hdrhistogram` crate's feature for it brings a second base64, a parser
//! and another zlib, which `lb` itself would be tested with.

use std::{
    fs::File,
    io::{self, BufWriter, Write},
    path::Path,
    time::{Duration, SystemTime},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use flate2::{Compression, write::ZlibEncoder};
use hdrhistogram::Histogram;

/// Begins an encoded histogram of version 2, with counts as variable-length words.
const COOKIE: u32 = 0x1c84_9303 | 0x10;
/// Begins a compressed one.
const COMPRESSED_COOKIE: u32 = 0x1c84_9304 | 0x10;

/// A log that grows by one line an interval.
pub(crate) struct Log<W: Write = BufWriter<File>> {
    out: W,
}

impl Log {
    /// An empty log in a file.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(crate) fn create(path: &Path) -> io::Result<Self> {
        File::create(path).map(BufWriter::new).map(Self::new)
    }
}

impl<W: Write> Log<W> {
    /// An empty log.
    pub(crate) fn new(out: W) -> Self {
        Self { out }
    }

    /// Writes what goes before the intervals, which count from `begin`.
    ///
    /// # Errors
    /// The writer's.
    pub(crate) fn begin(&mut self, begin: SystemTime) -> io::Result<()> {
        let out = &mut self.out;
        let since_epoch = begin.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let seconds = since_epoch.as_secs_f64();
        writeln!(
            out,
            "#[lb-bench {}, latencies in nanoseconds]",
            env!("CARGO_PKG_VERSION")
        )?;
        writeln!(out, "#[Histogram log format version 1.3]")?;
        writeln!(
            out,
            "#[StartTime: {seconds:.3} (seconds since epoch), {}]",
            humantime::format_rfc3339_millis(begin)
        )?;
        // Interval lines count from the epoch less this, so from the begin.
        writeln!(out, "#[BaseTime: {seconds:.3} (seconds since epoch)]")?;
        writeln!(
            out,
            "\"StartTimestamp\",\"Interval_Length\",\"Interval_Max\",\"Interval_Compressed_Histogram\""
        )
    }

    /// Adds an interval: when it began, counted from the log's begin, its length, and its latencies in nanoseconds. The greatest one
    /// stands in the line in milliseconds, as in the logs of other tools.
    ///
    /// # Errors
    /// The writer's.
    pub(crate) fn interval(
        &mut self,
        begin: Duration,
        length: Duration,
        latencies: &Histogram<u64>,
    ) -> io::Result<()> {
        writeln!(
            self.out,
            "{:.3},{:.3},{:.3},{}",
            begin.as_secs_f64(),
            length.as_secs_f64(),
            Duration::from_nanos(latencies.max()).as_secs_f64() * 1e3,
            STANDARD.encode(compressed(latencies)?)
        )?;
        // A run that is killed leaves what it has measured.
        self.out.flush()
    }
}

fn compressed(latencies: &Histogram<u64>) -> io::Result<Vec<u8>> {
    let mut zlib = ZlibEncoder::new(Vec::new(), Compression::default());
    zlib.write_all(&encoded(latencies)?)?;
    let body = zlib.finish()?;
    Ok([&COMPRESSED_COOKIE.to_be_bytes()[..], &length(&body)?, &body].concat())
}

fn length(bytes: &[u8]) -> io::Result<[u8; 4]> {
    let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
    Ok(length.to_be_bytes())
}

/// Header and counts. Counts are zigzag words; a negative one is a number of counts that are zero.
fn encoded(latencies: &Histogram<u64>) -> io::Result<Vec<u8>> {
    let mut counts = Vec::new();
    let mut zeros = 0_i64;
    for bucket in latencies.iter_all() {
        let count = i64::try_from(bucket.count_at_value()).map_err(io::Error::other)?;
        if count == 0 {
            zeros += 1;
            continue;
        }
        if zeros > 0 {
            put_word(&mut counts, -zeros);
        }
        zeros = 0;
        put_word(&mut counts, count);
    }
    let mut bytes = COOKIE.to_be_bytes().to_vec();
    bytes.extend(length(&counts)?);
    // No shift of the counts.
    bytes.extend(0_u32.to_be_bytes());
    bytes.extend(u32::from(latencies.sigfig()).to_be_bytes());
    bytes.extend(latencies.low().to_be_bytes());
    bytes.extend(latencies.high().to_be_bytes());
    // Values are whole numbers.
    bytes.extend(1_f64.to_be_bytes());
    bytes.extend(counts);
    Ok(bytes)
}

/// Appends a word in the format's variant of LEB128: seven bits a byte, lowest first, and a ninth byte with eight.
#[allow(
    clippy::cast_sign_loss,
    clippy::cast_possible_truncation,
    reason = "bits are moved, not values"
)]
fn put_word(out: &mut Vec<u8>, value: i64) {
    let mut left = ((value << 1) ^ (value >> 63)) as u64;
    for _ in 0..8 {
        if left < 0x80 {
            out.push(left as u8);
            return;
        }
        out.push(left as u8 | 0x80);
        left >>= 7;
    }
    out.push(left as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_have_the_bytes_of_the_format() {
        // Zigzag of 64-bit words: 0, -1, 1, … become 0, 1, 2, …
        for (value, expected) in [
            (0, &[0][..]),
            (-1, &[1]),
            (1, &[2]),
            (64, &[0x80, 1]),
            (i64::MAX, &[0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]),
            (i64::MIN, &[0xff; 9]),
        ] {
            let mut bytes = Vec::new();
            put_word(&mut bytes, value);
            assert_eq!(bytes, expected, "{value}");
        }
    }

    #[test]
    fn a_line_is_what_other_tools_read() {
        let mut latencies = Histogram::new_with_bounds(1, 3_600_000_000_000, 3).unwrap();
        for value in [1, 1, 100, 1_000_000, 2_000_000_000] {
            latencies.record(value).unwrap();
        }
        let bytes = encoded(&latencies).unwrap();
        assert_eq!(bytes[..12], [0x1c, 0x84, 0x93, 0x13, 0, 0, 0, 13, 0, 0, 0, 0]);
        assert_eq!(
            bytes[12..32],
            [
                0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 3, 0x46, 0x30, 0xb8, 0xa0, 0
            ]
        );
        // One zero, two counts of 1, 98 zeros, one count, zeros to 1 ms, one, zeros to 2 s, one.
        let words = &bytes[40..];
        assert_eq!(words[..5], [1, 4, 195, 1, 2]);
        assert_eq!(words.last(), Some(&2));
        let mut out = Vec::new();
        let mut log = Log::new(&mut out);
        log.begin(SystemTime::UNIX_EPOCH + Duration::from_secs(5))
            .unwrap();
        log.interval(Duration::from_secs(1), Duration::from_millis(1_001), &latencies)
            .unwrap();
        let text = String::from_utf8(out).unwrap();
        let line = text.lines().last().unwrap();
        assert!(line.starts_with("1.000,1.001,2000."), "{line}");
        assert!(line.contains(",HISTFAAAA"), "{line}");
        assert!(
            text.contains("#[BaseTime: 5.000 (seconds since epoch)]"),
            "{text}"
        );
    }
}
