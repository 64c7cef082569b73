//! What is sent: the changes of a batch as JSON lists of bounded size. Pure, so that a repeat is the same bytes.

use crate::deliver::sink::OutChange;
use crate::formats::{Encoder, Format, Record, s3event};
use bytes::Bytes;

/// Bytes of one request's body, unless a single change is larger: what receivers commonly take.
pub const BODY_BYTES_MAX: usize = 1 << 20;

/// What became of one change of the journal: all rows of it, with commas between. Empty where the format has no word for it.
#[derive(Clone, Debug)]
pub struct Part {
    pub epoch: u32,
    pub lsn: u64,
    pub text: Vec<u8>,
}

/// The parts of a batch, in order. Rows of one change stay together.
pub fn parts(encoder: &Encoder, changes: &[OutChange]) -> Vec<Part> {
    let mut out: Vec<Part> = Vec::new();
    for change in changes {
        let text = items(encoder, change).join(&b","[..]);
        match out.last_mut() {
            Some(last) if last.lsn == change.lsn => {
                if !last.text.is_empty() && !text.is_empty() {
                    last.text.push(b',');
                }
                last.text.extend_from_slice(&text);
            }
            _ => out.push(Part { epoch: change.epoch, lsn: change.lsn, text }),
        }
    }
    out
}

/// The messages of a change. A tombstone says something of a topic, and here is none.
fn items(encoder: &Encoder, change: &OutChange) -> Vec<Vec<u8>> {
    let record = Record::of_out(change);
    if encoder.format == Format::S3Event {
        // All records of a request stand in one list.
        let mut out = Vec::new();
        return if s3event::put_records(&mut out, encoder.source(), &record) {
            vec![out]
        } else {
            Vec::new()
        };
    }
    encoder.messages(&record).into_iter().filter_map(|message| message.value).collect()
}

/// How many of the first parts make one request.
pub fn first_request(parts: &[Part], rows_max: usize) -> usize {
    let mut bytes = 0;
    let fits = |part: &&Part| {
        bytes += part.text.len() + 1;
        bytes <= BODY_BYTES_MAX
    };
    parts.iter().take(rows_max).take_while(fits).count().max(1).min(parts.len())
}

/// The body of a request; `None` when there is nothing to say.
pub fn body(format: Format, parts: &[Part]) -> Option<Bytes> {
    let texts: Vec<&[u8]> = parts.iter().map(|part| &part.text[..]).filter(|text| !text.is_empty()).collect();
    if texts.is_empty() {
        return None;
    }
    let (begin, end) = if format == Format::S3Event { s3event::BODY } else { (&b"["[..], &b"]"[..]) };
    Some([begin, &texts.join(&b","[..]), end].concat().into())
}

/// `SOURCE:EPOCH:FIRST-LAST:CRC`: the same for the same changes of a journal in the same words, and for nothing else.
pub fn id(source: &str, parts: &[Part], body: &[u8]) -> String {
    let (epoch, first) = parts.first().map_or((0, 0), |part| (part.epoch, part.lsn));
    let last = parts.last().map_or(first, |part| part.lsn);
    format!("{source}:{epoch}:{first}-{last}:{:08x}", crc32c::crc32c(body))
}

pub const fn content_type(format: Format) -> &'static str {
    match format {
        Format::CloudEvents => "application/cloudevents-batch+json",
        _ => "application/json",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(lsn: u64, text: &str) -> Part {
        Part { epoch: 1, lsn, text: text.into() }
    }

    #[test]
    fn requests_are_cut_by_rows_and_bytes_and_never_empty() {
        let small: Vec<_> = (1..=5).map(|lsn| part(lsn, "{}")).collect();
        assert_eq!((first_request(&small, 2), first_request(&small, 9), first_request(&[], 9)), (2, 5, 0));
        let large: Vec<_> = (1..=4).map(|lsn| part(lsn, &"x".repeat(BODY_BYTES_MAX / 2 - 1))).collect();
        assert_eq!((first_request(&large, 9), first_request(&large[..1], 9)), (2, 1));
        assert_eq!(first_request(&[part(1, &"x".repeat(BODY_BYTES_MAX + 1)), part(2, "{}")], 9), 1);
    }

    #[test]
    fn a_body_is_a_list_of_what_the_format_has_words_for_and_its_id_tells_it() {
        assert_eq!(body(Format::Json, &[part(1, ""), part(2, "")]), None);
        let parts = [part(7, "{}"), part(8, ""), part(9, "1,2")];
        let s3 = body(Format::S3Event, &parts).unwrap();
        assert_eq!(&s3[..], b"{\"Records\":[{},1,2]}");
        let body = body(Format::Json, &parts).unwrap();
        assert_eq!(&body[..], b"[{},1,2]");
        let own = id("shop", &parts, &body);
        assert!(own.starts_with("shop:1:7-9:"), "{own}");
        assert_ne!(own, id("shop", &parts, b"[{},1,3]"));
    }
}
