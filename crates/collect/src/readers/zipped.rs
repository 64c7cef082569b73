//! Workbooks that are zips, looked through before the library reads them.
//!
//! The library believes numbers of the file: it sets memory aside for as many texts as one claims to have, and memory that cannot
//! be had ends the program. So each part is unpacked once, by the same code that the library unpacks with, and counted as it comes:
//! what the file says of its own size is not asked.

use std::io::{Cursor, Read};
use zip::ZipArchive;

/// Bytes of all parts together: fifty times of the largest that is packed by default is far above what people keep in one.
const UNPACKED_MAX: u64 = 2 << 30;
/// Of the texts, which are held in memory.
const TEXTS_MAX: u64 = 256 << 20;
/// Of the formats of cells as they are packed in XML, and as the library writes them out: each with the name of its font and with
/// how it shows numbers.
const FORMATS_MAX: u64 = 64 << 20;
const FORMATS_OUT_MAX: u64 = 1 << 30;
/// Bytes of a format besides its texts.
const FORMAT_BYTES: u64 = 512;
/// The shortest text of all: `<si/>`.
const TEXT_BYTES_MIN: u64 = 5;

/// The names of a workbook's parts, small and with `/`; `Err` says what is wrong.
pub fn parts(bytes: &[u8]) -> Result<Vec<String>, String> {
    parts_up_to(bytes, UNPACKED_MAX)
}

fn parts_up_to(bytes: &[u8], unpacked_max: u64) -> Result<Vec<String>, String> {
    let mut zip = ZipArchive::new(Cursor::new(bytes))
        .map_err(|_| "its directory is missing: it was cut off".to_owned())?;
    let mut names = Vec::with_capacity(zip.len());
    let mut unpacked = 0_u64;
    let mut space = vec![0; 64 * 1024];
    for at in 0..zip.len() {
        // A part that cannot be unpacked is no error here: it may be one that nobody reads.
        let Ok(mut part) = zip.by_index(at) else { continue };
        let Ok(name) = part.name().map(|name| name.replace('\\', "/").to_ascii_lowercase()) else { continue };
        let mut texts = name.ends_with("sharedstrings.xml").then(Texts::default);
        let mut formats = name.ends_with("styles.xml").then(Formats::default);
        loop {
            let read = match part.read(&mut space) {
                Ok(0) => break,
                Ok(read) => read,
                // The library, which reads in other pieces, may see more of it before it fails.
                Err(error) if texts.is_some() || formats.is_some() => {
                    return Err(format!("{name} cannot be unpacked: {error}"));
                }
                Err(_) => break,
            };
            unpacked += read as u64;
            if unpacked > unpacked_max {
                return Err(format!(
                    "it holds more than {unpacked_max} bytes when it is unpacked: save its sheets as CSV"
                ));
            }
            if let Some(texts) = &mut texts {
                texts.next(&space[..read])?;
            }
            if let Some(formats) = &mut formats {
                formats.next(&space[..read])?;
            }
        }
        texts.map_or(Ok(()), Texts::end)?;
        formats.map_or(Ok(()), Formats::end)?;
        names.push(name);
    }
    Ok(names)
}

/// These bytes are in no XML of UTF-8; in other encodings a word may be written so that it is not found here.
fn utf8(bytes: &[u8]) -> Result<(), String> {
    let other = bytes.iter().any(|byte| matches!(byte, 0 | 0x1B));
    if other { Err("its XML is not in UTF-8".to_owned()) } else { Ok(()) }
}

/// The texts that cells share, as far as they were seen.
#[derive(Default)]
struct Texts {
    bytes: u64,
    count: Count,
}

impl Texts {
    fn next(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.bytes += bytes.len() as u64;
        if self.bytes > TEXTS_MAX {
            return Err(format!("its texts have more than {TEXTS_MAX} bytes: save its sheets as CSV"));
        }
        bytes.iter().for_each(|byte| self.count.next(*byte));
        utf8(bytes)
    }

    fn end(mut self) -> Result<(), String> {
        self.count.end();
        if self.count.most > self.bytes / TEXT_BYTES_MIN {
            return Err(format!("it claims {} texts, which it does not hold", self.count.most));
        }
        Ok(())
    }
}

/// The formats of cells, as far as they were seen.
#[derive(Default)]
struct Formats {
    bytes: u64,
    /// Tags that are called `xf`.
    count: u64,
    /// How much of that name the tag has that is open now; more than there is of it: it is another.
    name: Option<usize>,
    /// Bytes since the last double quote: what stands between two is no longer.
    run: u64,
    /// The same in single quotes, which only begin behind `=`.
    single: Single,
    longest: u64,
}

#[derive(Default)]
enum Single {
    #[default]
    Outside,
    Equals,
    Inside(u64),
}

impl Formats {
    const NAME: &[u8] = b"xf";

    fn next(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.bytes += bytes.len() as u64;
        if self.bytes > FORMATS_MAX {
            return Err(format!("its formats have more than {FORMATS_MAX} bytes: save its sheets as CSV"));
        }
        for byte in bytes {
            self.run = if *byte == b'"' { 0 } else { self.run + 1 };
            self.single = match (&self.single, byte) {
                (Single::Inside(_), b'\'') => Single::Outside,
                (Single::Inside(run), _) => Single::Inside(run + 1),
                (_, b'=') => Single::Equals,
                (Single::Equals, b' ' | b'\t' | b'\r' | b'\n') => Single::Equals,
                (Single::Equals, b'\'') => Single::Inside(0),
                _ => Single::Outside,
            };
            let single = if let Single::Inside(run) = self.single { run } else { 0 };
            self.longest = self.longest.max(self.run).max(single);
            self.name = match (self.name, byte) {
                (_, b'<') | (Some(_), b':') => Some(0),
                (Some(seen), b' ' | b'\t' | b'\r' | b'\n' | b'/' | b'>') => {
                    self.count += u64::from(seen == Self::NAME.len());
                    None
                }
                (Some(seen), _) if Self::NAME.get(seen) == Some(byte) => Some(seen + 1),
                (Some(_), _) => Some(Self::NAME.len() + 1),
                (None, _) => None,
            };
        }
        utf8(bytes)
    }

    fn end(self) -> Result<(), String> {
        if self.count.saturating_mul(2 * self.longest + FORMAT_BYTES) > FORMATS_OUT_MAX {
            return Err("its formats take more memory than they are worth: save its sheets as CSV".to_owned());
        }
        Ok(())
    }
}

/// Finds `uniqueCount="…"`, byte by byte, with whatever stands between.
#[derive(Default)]
struct Count {
    /// Bytes of the name that were seen.
    seen: usize,
    number: Option<u64>,
    /// The largest that was found.
    most: u64,
}

impl Count {
    const NAME: &[u8] = b"uniqueCount";
    /// `uniqu` ends as the name begins: how far the name has come then, and how far without what was before.
    const AGAIN: (usize, usize) = (5, 1);

    fn next(&mut self, byte: u8) {
        if self.seen == Self::NAME.len() {
            match (byte, self.number) {
                (b'0'..=b'9', number) => {
                    let digit = u64::from(byte - b'0');
                    self.number = Some(number.unwrap_or(0).saturating_mul(10).saturating_add(digit));
                    return;
                }
                (b' ' | b'\t' | b'\r' | b'\n' | b'=' | b'"' | b'\'', None) => return,
                _ => self.end(),
            }
        }
        while self.seen > 0 && Self::NAME[self.seen] != byte {
            self.seen = if self.seen == Self::AGAIN.0 { Self::AGAIN.1 } else { 0 };
        }
        if Self::NAME[self.seen] == byte {
            self.seen += 1;
        }
    }

    fn end(&mut self) {
        self.most = self.most.max(self.number.take().unwrap_or(0));
        self.seen = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::{Count, Formats, parts_up_to};
    use std::io::{Cursor, Write as _};
    use zip::ZipWriter;
    use zip::write::SimpleFileOptions;

    #[test]
    fn a_workbook_is_as_large_as_it_becomes() {
        let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
        zip.start_file("xl\\Workbook.xml", SimpleFileOptions::default()).unwrap();
        zip.write_all(&vec![0; 1 << 20]).unwrap();
        let mut bytes = zip.finish().unwrap().into_inner();
        let error = parts_up_to(&bytes, 1 << 16).err().unwrap();
        assert!(error.contains("more than 65536 bytes"), "{error}");
        assert_eq!(parts_up_to(&bytes, 1 << 20).unwrap(), ["xl/workbook.xml"]);
        // One that lies, in its own header and in the directory, gives no more than it says, to the library as to us.
        for (header, size) in [(b"PK\x03\x04", 22), (b"PK\x01\x02", 24)] {
            let at = bytes.windows(4).position(|window| window == header).unwrap() + size;
            bytes[at..at + 4].copy_from_slice(&10_u32.to_le_bytes());
        }
        assert_eq!(parts_up_to(&bytes, 1 << 10).unwrap(), ["xl/workbook.xml"]);
    }

    #[test]
    fn formats_are_measured_with_their_longest_text() {
        let error = |xml: &str| {
            let mut formats = Formats::default();
            xml.as_bytes()
                .chunks(7)
                .try_for_each(|part| formats.next(part))
                .and_then(|()| formats.end())
                .err()
        };
        let xfs = |count: usize, tag: &str| tag.repeat(count);
        let long = "A>".repeat(32 * 1024);
        for quote in ["\"", "'"] {
            let font = format!("<font><name val = {quote}{long}{quote}/></font><a b=\"c\"/>");
            let few = font.clone() + &xfs(100, "<xf fontId=\"0\"/>");
            assert_eq!(error(&few), None);
            let many = font.clone() + &xfs(10_000, "<x:xf\nfontId=\"0\"/>");
            assert!(error(&many).is_some_and(|error| error.contains("more memory than they are worth")));
            assert_eq!(error(&(font + &xfs(10_000, "<xfs a=\"0\"></xf>"))), None);
        }
        assert!(error("<a\0>").is_some());
    }

    #[test]
    fn a_count_is_found_however_it_is_written() {
        for (text, wanted) in [
            (r#"<sst count="7" uniqueCount="12">"#, 12),
            ("uniquniqueCount \n=\t'34'", 34),
            (r#"uniqueCount="1" uniqueCount="99999999999" uniqueCount="2""#, 99_999_999_999),
            ("uniqueCount=99999999999999999999999999", u64::MAX),
            (r#"uniqueCounter="5""#, 0),
            ("uniqueCoun", 0),
        ] {
            let mut count = Count::default();
            text.bytes().for_each(|byte| count.next(byte));
            count.end();
            assert_eq!(count.most, wanted, "{text}");
        }
    }
}
