//! GTIDs and their set algebra, for MySQL (`uuid[:tag]:1-5:7`) and MariaDB (`domain-server-sequence`).
//!
//! MySQL's text forms are those of its manual: intervals are inclusive in text, half-open in memory.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// Text that is not a GTID or a set of them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a GTID set")]
pub struct BadGtid(pub String);

/// A server's uuid, as 16 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServerUuid(pub [u8; 16]);

impl fmt::Display for ServerUuid {
    /// By hand: every transaction's id is printed once, and the formatter takes ten times as long.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut text = [b'-'; 36];
        let mut at = 0;
        for (index, byte) in self.0.iter().enumerate() {
            if matches!(index, 4 | 6 | 8 | 10) {
                at += 1;
            }
            text[at] = DIGITS[usize::from(byte >> 4)];
            text[at + 1] = DIGITS[usize::from(byte & 15)];
            at += 2;
        }
        f.write_str(std::str::from_utf8(&text).expect("digits and dashes"))
    }
}

impl FromStr for ServerUuid {
    type Err = BadGtid;

    fn from_str(text: &str) -> Result<Self, BadGtid> {
        let bad = || BadGtid(text.to_owned());
        let digits: Vec<u8> = text.bytes().filter(|b| *b != b'-').collect();
        if digits.len() != 32 {
            return Err(bad());
        }
        let mut out = [0; 16];
        for (byte, pair) in out.iter_mut().zip(digits.chunks(2)) {
            let pair = std::str::from_utf8(pair).map_err(|_| bad())?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| bad())?;
        }
        Ok(Self(out))
    }
}

/// One MySQL transaction's identity.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Gtid {
    pub uuid: ServerUuid,
    /// Empty when untagged; otherwise lower case, 32 characters at most.
    pub tag: String,
    pub number: u64,
}

impl fmt::Display for Gtid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.tag.is_empty() {
            write!(f, "{}:{}", self.uuid, self.number)
        } else {
            write!(f, "{}:{}:{}", self.uuid, self.tag, self.number)
        }
    }
}

/// Sorted, disjoint, non-adjacent half-open intervals.
type Intervals = Vec<(u64, u64)>;

/// A set of MySQL GTIDs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GtidSet(BTreeMap<(ServerUuid, String), Intervals>);

impl GtidSet {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The intervals by uuid and tag, for the wire encoding of a dump request.
    pub fn entries(&self) -> impl Iterator<Item = (&ServerUuid, &str, &[(u64, u64)])> {
        self.0.iter().map(|((uuid, tag), intervals)| (uuid, tag.as_str(), intervals.as_slice()))
    }

    pub fn insert(&mut self, gtid: &Gtid) {
        self.insert_range(gtid.uuid, &gtid.tag, gtid.number, gtid.number + 1);
    }

    /// Adds `start..end`.
    pub fn insert_range(&mut self, uuid: ServerUuid, tag: &str, start: u64, end: u64) {
        if start >= end {
            return;
        }
        if let Some(intervals) = self.0.get_mut(&(uuid, tag.to_owned())) {
            if let Some(last) = intervals.last_mut()
                && last.0 <= start
                && start <= last.1
            {
                last.1 = last.1.max(end);
                return;
            }
            insert_interval(intervals, start, end);
        } else {
            self.0.insert((uuid, tag.to_owned()), vec![(start, end)]);
        }
    }

    pub fn contains(&self, gtid: &Gtid) -> bool {
        self.0.get(&(gtid.uuid, gtid.tag.clone())).is_some_and(|intervals| {
            let after = intervals.partition_point(|i| i.0 <= gtid.number);
            after > 0 && gtid.number < intervals[after - 1].1
        })
    }

    pub fn is_subset_of(&self, other: &Self) -> bool {
        self.0.iter().all(|(key, intervals)| {
            let Some(theirs) = other.0.get(key) else { return intervals.is_empty() };
            intervals.iter().all(|i| theirs.iter().any(|t| t.0 <= i.0 && i.1 <= t.1))
        })
    }

    pub fn union(&mut self, other: &Self) {
        for ((uuid, tag), intervals) in &other.0 {
            for (start, end) in intervals {
                self.insert_range(*uuid, tag, *start, *end);
            }
        }
    }

    /// What is in `self` and not in `other`.
    pub fn minus(&self, other: &Self) -> Self {
        let mut out = Self::default();
        for ((uuid, tag), intervals) in &self.0 {
            let holes = other.0.get(&(*uuid, tag.clone())).map_or(&[][..], Vec::as_slice);
            for &(mut start, end) in intervals {
                for &(hole_start, hole_end) in holes {
                    if hole_end <= start || hole_start >= end {
                        continue;
                    }
                    out.insert_range(*uuid, tag, start, hole_start.max(start));
                    start = hole_end.min(end);
                }
                out.insert_range(*uuid, tag, start, end);
            }
        }
        out
    }

    /// How many transactions the set names.
    pub fn count(&self) -> u64 {
        self.0.values().flatten().map(|(start, end)| end - start).sum()
    }
}

fn insert_interval(intervals: &mut Intervals, start: u64, end: u64) {
    let first = intervals.partition_point(|i| i.1 < start);
    let last = intervals.partition_point(|i| i.0 <= end);
    if first >= last {
        intervals.insert(first, (start, end));
        return;
    }
    let merged = (start.min(intervals[first].0), end.max(intervals[last - 1].1));
    intervals.splice(first..last, [merged]);
}

impl fmt::Display for GtidSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, ((uuid, tag), intervals)) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            write!(f, "{uuid}")?;
            if !tag.is_empty() {
                write!(f, ":{tag}")?;
            }
            for (start, end) in intervals {
                if end - start == 1 { write!(f, ":{start}")? } else { write!(f, ":{start}-{}", end - 1)? }
            }
        }
        Ok(())
    }
}

impl FromStr for GtidSet {
    type Err = BadGtid;

    fn from_str(text: &str) -> Result<Self, BadGtid> {
        let bad = || BadGtid(text.to_owned());
        let mut out = Self::default();
        for part in text.split(',').map(str::trim).filter(|p| !p.is_empty()) {
            let mut pieces = part.split(':').map(str::trim);
            let uuid: ServerUuid = pieces.next().ok_or_else(bad)?.parse().map_err(|_| bad())?;
            let mut tag = String::new();
            for piece in pieces {
                if piece.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') {
                    tag = piece.to_ascii_lowercase();
                    continue;
                }
                let (first, last) = piece.split_once('-').unwrap_or((piece, piece));
                let first: u64 = first.trim().parse().map_err(|_| bad())?;
                let last: u64 = last.trim().parse().map_err(|_| bad())?;
                if first == 0 || last < first || last >= i64::MAX as u64 {
                    return Err(bad());
                }
                out.insert_range(uuid, &tag, first, last + 1);
            }
        }
        Ok(out)
    }
}

impl FromStr for Gtid {
    type Err = BadGtid;

    fn from_str(text: &str) -> Result<Self, BadGtid> {
        let bad = || BadGtid(text.to_owned());
        let (head, number) = text.rsplit_once(':').ok_or_else(bad)?;
        let (uuid, tag) = head.split_once(':').unwrap_or((head, ""));
        Ok(Self {
            uuid: uuid.parse().map_err(|_| bad())?,
            tag: tag.to_ascii_lowercase(),
            number: number.parse().map_err(|_| bad())?,
        })
    }
}

/// One MariaDB transaction's identity: `domain-server-sequence`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MariaGtid {
    pub domain: u32,
    pub server: u32,
    pub sequence: u64,
}

impl fmt::Display for MariaGtid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}", self.domain, self.server, self.sequence)
    }
}

impl FromStr for MariaGtid {
    type Err = BadGtid;

    fn from_str(text: &str) -> Result<Self, BadGtid> {
        let bad = || BadGtid(text.to_owned());
        let mut parts = text.trim().split('-');
        let mut next = || parts.next().ok_or_else(bad);
        let (domain, server, sequence) = (next()?, next()?, next()?);
        let gtid = Self {
            domain: domain.parse().map_err(|_| bad())?,
            server: server.parse().map_err(|_| bad())?,
            sequence: sequence.parse().map_err(|_| bad())?,
        };
        if parts.next().is_some() { Err(bad()) } else { Ok(gtid) }
    }
}

/// A MariaDB position: the last GTID of each domain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MariaGtidSet(BTreeMap<u32, MariaGtid>);

impl MariaGtidSet {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn insert(&mut self, gtid: MariaGtid) {
        self.0.insert(gtid.domain, gtid);
    }

    /// Whether the position is at or past `gtid` in its domain.
    pub fn contains(&self, gtid: MariaGtid) -> bool {
        self.0.get(&gtid.domain).is_some_and(|own| own.sequence >= gtid.sequence)
    }

    pub fn is_subset_of(&self, other: &Self) -> bool {
        self.0.values().all(|gtid| other.contains(*gtid))
    }
}

impl fmt::Display for MariaGtidSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, gtid) in self.0.values().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            write!(f, "{gtid}")?;
        }
        Ok(())
    }
}

impl FromStr for MariaGtidSet {
    type Err = BadGtid;

    fn from_str(text: &str) -> Result<Self, BadGtid> {
        let mut out = Self::default();
        for part in text.split(',').map(str::trim).filter(|p| !p.is_empty()) {
            out.insert(part.parse()?);
        }
        Ok(out)
    }
}

macro_rules! serde_as_text {
    ($($ty:ty),*) => {$(
        impl Serialize for $ty {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
        impl<'de> Deserialize<'de> for $ty {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
    )*};
}
serde_as_text!(GtidSet, MariaGtidSet, Gtid, MariaGtid);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    const UUID: &str = "3e11fa47-71ca-11e1-9e33-c80aa9429562";

    #[test]
    fn sets_print_as_mysql_prints_them() {
        let text = format!("{UUID}:1-5:7,{UUID}:blue:3");
        let set: GtidSet = text.parse().unwrap();
        assert_eq!(set.to_string(), text);
        assert_eq!(set.count(), 7);
        let joined: GtidSet = format!("{UUID}:1-5:7:6:blue:3").parse().unwrap();
        assert_eq!(joined.to_string(), format!("{UUID}:1-7,{UUID}:blue:3"));
        assert!(set.is_subset_of(&joined) && !joined.is_subset_of(&set));
        assert_eq!(joined.minus(&set).to_string(), format!("{UUID}:6"));
        assert_eq!("".parse(), Ok(GtidSet::default()));
        for wrong in ["x", "3e11:1", &format!("{UUID}:0"), &format!("{UUID}:5-1")] {
            assert!(wrong.parse::<GtidSet>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_mariadb_position_contains_what_its_domains_passed() {
        let set: MariaGtidSet = "0-1-10,2-1-5".parse().unwrap();
        assert!(set.contains("0-7-10".parse().unwrap()));
        assert!(!set.contains("2-1-6".parse().unwrap()));
        assert!(!set.contains("1-1-1".parse().unwrap()));
        assert_eq!(set.to_string(), "0-1-10,2-1-5");
    }

    fn numbers() -> impl Strategy<Value = BTreeSet<u64>> {
        proptest::collection::btree_set(1u64..40, 0..30)
    }

    fn set_of(numbers: &BTreeSet<u64>) -> GtidSet {
        let uuid = UUID.parse().unwrap();
        let mut set = GtidSet::default();
        for number in numbers {
            set.insert(&Gtid { uuid, tag: String::new(), number: *number });
        }
        set
    }

    proptest! {
        #[test]
        fn the_algebra_is_that_of_plain_sets(a in numbers(), b in numbers()) {
            let (left, right) = (set_of(&a), set_of(&b));
            prop_assert_eq!(left.is_subset_of(&right), a.is_subset(&b));
            prop_assert_eq!(left.minus(&right), set_of(&a.difference(&b).copied().collect()));
            let mut union = left.clone();
            union.union(&right);
            prop_assert_eq!(&union, &set_of(&a.union(&b).copied().collect()));
            prop_assert_eq!(union.to_string().parse::<GtidSet>().unwrap(), union);
            for number in 1..40 {
                let gtid = Gtid { uuid: UUID.parse().unwrap(), tag: String::new(), number };
                prop_assert_eq!(left.contains(&gtid), a.contains(&number));
            }
        }

        #[test]
        fn garbage_never_panics(text in "[0-9a-f:,\\- ]{0,80}") {
            let _ = text.parse::<GtidSet>();
            let _ = text.parse::<MariaGtidSet>();
        }
    }
}
