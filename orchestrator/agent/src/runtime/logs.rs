//! What a container prints, kept in two bounded files: `log`, and `log.1` before it.
//!
//! A line is `<ms since the epoch> <1 stdout | 2 stderr> <text>\n`. A text longer than [`LINE_MAX`] becomes several
//! lines. Output that cannot be written (a full disk) is dropped: a workload is never stopped by its own logging.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// The longest text of one line, in bytes.
pub const LINE_MAX: usize = 16 << 10;

/// Which of a container's outputs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}
impl Stream {
    /// The number on the wire and in the file: 1 or 2.
    pub fn number(self) -> u32 {
        match self {
            Stream::Stdout => 1,
            Stream::Stderr => 2,
        }
    }
}

/// One line of a container's output.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Line {
    /// When it was read, in milliseconds since the epoch.
    pub at_ms: i64,
    /// Where it was printed.
    pub stream: Stream,
    /// What, without the newline.
    pub text: Vec<u8>,
}

/// Writes the files of one container, from the shim.
#[derive(Debug)]
pub(crate) struct LogWriter {
    dir: PathBuf,
    file: File,
    written: u64,
    limit: u64,
    open_lines: [Vec<u8>; 2],
}

impl LogWriter {
    /// Files in `dir`, each of at most `limit` bytes and one line.
    pub(crate) fn create(dir: &Path, limit: u64) -> io::Result<Self> {
        let file = fresh(&dir.join("log"))?;
        Ok(Self { dir: dir.to_owned(), file, written: 0, limit, open_lines: [Vec::new(), Vec::new()] })
    }

    /// Takes what was read from `stream` at `at_ms`; writes the lines that it completes.
    pub(crate) fn feed(&mut self, stream: Stream, at_ms: i64, bytes: &[u8]) {
        for part in bytes.split_inclusive(|&b| b == b'\n') {
            let (text, ends) = part.strip_suffix(b"\n").map_or((part, false), |text| (text, true));
            let mut rest = text;
            loop {
                let open = self.open_line(stream);
                let (now, later) = rest.split_at(rest.len().min(LINE_MAX.saturating_sub(open.len())));
                open.extend_from_slice(now);
                rest = later;
                if rest.is_empty() {
                    break;
                }
                self.end_line(stream, at_ms);
            }
            if ends {
                self.end_line(stream, at_ms);
            }
        }
    }

    /// Writes what has been printed without a newline at its end.
    pub(crate) fn finish(&mut self, at_ms: i64) {
        for stream in [Stream::Stdout, Stream::Stderr] {
            if !self.open_line(stream).is_empty() {
                self.end_line(stream, at_ms);
            }
        }
    }

    fn open_line(&mut self, stream: Stream) -> &mut Vec<u8> {
        let [out, err] = &mut self.open_lines;
        match stream {
            Stream::Stdout => out,
            Stream::Stderr => err,
        }
    }

    fn end_line(&mut self, stream: Stream, at_ms: i64) {
        let mut line = format!("{at_ms} {} ", stream.number()).into_bytes();
        line.append(self.open_line(stream));
        line.push(b'\n');
        // A full disk loses output, not the workload.
        self.write(&line).ok();
    }

    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        if self.written >= self.limit {
            fs::rename(self.dir.join("log"), self.dir.join("log.1"))?;
            self.file = fresh(&self.dir.join("log"))?;
            self.written = 0;
        }
        self.file.write_all(line)?;
        self.written = self.written.saturating_add(u64::try_from(line.len()).unwrap_or(u64::MAX));
        Ok(())
    }
}

fn fresh(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(path)
}

/// Reads a container's output from the beginning of what is kept, and then what is added, call by call.
#[derive(Debug)]
pub struct LogReader {
    dir: PathBuf,
    file: Option<(u64, BufReader<File>)>,
    partial: Vec<u8>,
}

impl LogReader {
    /// The output kept in the container's directory `dir`.
    pub fn open(dir: &Path) -> io::Result<Self> {
        let file = open_numbered(&dir.join("log.1"))?;
        Ok(Self { dir: dir.to_owned(), file, partial: Vec::new() })
    }

    /// All lines written since the last call; empty if there are none. Never waits.
    pub fn read_new(&mut self) -> io::Result<Vec<Line>> {
        let mut lines = Vec::new();
        loop {
            self.read_file(&mut lines)?;
            let current = open_numbered(&self.dir.join("log"))?;
            let is_other = match (&self.file, &current) {
                (Some((have, _)), Some((now, _))) => have != now,
                (None, Some(_)) => true,
                (_, None) => false,
            };
            if !is_other {
                return Ok(lines);
            }
            // What was written between the last read and the rotation is still in the file that is open.
            self.read_file(&mut lines)?;
            self.file = current;
            self.partial.clear();
        }
    }

    fn read_file(&mut self, lines: &mut Vec<Line>) -> io::Result<()> {
        let Some((_, file)) = &mut self.file else { return Ok(()) };
        let mut fresh = Vec::new();
        file.read_to_end(&mut fresh)?;
        for part in fresh.split_inclusive(|&b| b == b'\n') {
            self.partial.extend_from_slice(part);
            if part.ends_with(b"\n") {
                lines.extend(parse(&self.partial));
                self.partial.clear();
            }
        }
        Ok(())
    }
}

/// The last `n` lines of the output kept in `dir`; 0: all of them.
pub fn tail(dir: &Path, n: usize) -> io::Result<Vec<Line>> {
    let mut lines = LogReader::open(dir)?.read_new()?;
    if n > 0 {
        lines.drain(..lines.len().saturating_sub(n));
    }
    Ok(lines)
}

fn open_numbered(path: &Path) -> io::Result<Option<(u64, BufReader<File>)>> {
    match File::open(path) {
        Ok(file) => Ok(Some((file.metadata()?.ino(), BufReader::new(file)))),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

fn parse(line: &[u8]) -> Option<Line> {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let mut parts = line.splitn(3, |&b| b == b' ');
    let at_ms = std::str::from_utf8(parts.next()?).ok()?.parse().ok()?;
    let stream = match parts.next()? {
        b"1" => Stream::Stdout,
        b"2" => Stream::Stderr,
        _ => return None,
    };
    Some(Line { at_ms, stream, text: parts.next()?.to_vec() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(lines: &[Line]) -> Vec<String> {
        lines.iter().map(|l| String::from_utf8_lossy(&l.text).into_owned()).collect()
    }

    #[test]
    fn lines_come_back_as_they_were_printed() {
        let dir = tempfile::tempdir().unwrap();
        let mut w = LogWriter::create(dir.path(), 1 << 20).unwrap();
        w.feed(Stream::Stdout, 5, b"one\ntw");
        w.feed(Stream::Stderr, 6, b"err with spaces \n");
        w.feed(Stream::Stdout, 7, b"o\n\nopen");
        let mut r = LogReader::open(dir.path()).unwrap();
        assert_eq!(texts(&r.read_new().unwrap()), ["one", "err with spaces ", "two", ""]);
        w.finish(9);
        let last = r.read_new().unwrap();
        assert_eq!(last, [Line { at_ms: 9, stream: Stream::Stdout, text: b"open".to_vec() }]);
        assert_eq!(texts(&tail(dir.path(), 2).unwrap()), ["", "open"]);
    }

    #[test]
    fn a_reader_that_follows_loses_nothing_to_rotation() {
        let dir = tempfile::tempdir().unwrap();
        let mut w = LogWriter::create(dir.path(), 100).unwrap();
        let mut r = LogReader::open(dir.path()).unwrap();
        let mut seen = Vec::new();
        for i in 0..200 {
            w.feed(Stream::Stdout, 1, format!("line {i}\n").as_bytes());
            if i % 5 == 0 {
                seen.extend(texts(&r.read_new().unwrap()));
            }
        }
        seen.extend(texts(&r.read_new().unwrap()));
        assert_eq!(seen, (0..200).map(|i| format!("line {i}")).collect::<Vec<_>>());
    }

    #[test]
    fn the_files_stay_within_their_bound_whatever_is_printed() {
        let dir = tempfile::tempdir().unwrap();
        let limit = 64 << 10;
        let mut w = LogWriter::create(dir.path(), limit).unwrap();
        for _ in 0..40 {
            w.feed(Stream::Stdout, 1, &[b'x'; 50_000]);
        }
        for name in ["log", "log.1"] {
            let size = fs::metadata(dir.path().join(name)).unwrap().len();
            assert!(size <= limit + u64::try_from(LINE_MAX).unwrap() + 32, "{name} has {size}");
        }
        assert!(tail(dir.path(), 0).unwrap().iter().all(|l| l.text.len() <= LINE_MAX));
    }
}
