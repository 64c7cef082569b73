//! The PROXY protocol, versions 1 and 2: who the client is, told by the balancer in front before anything else is said.
//!
//! ```text
//! 1:  PROXY TCP4 192.0.2.7 192.0.2.1 51000 3306\r\n          at most 107 bytes
//! 2:  signature (12) | version 2, command (4 bits each) | family, transport (4 bits each) | length (2, big endian)
//!     | addresses (12 of IPv4, 36 of IPv6) | type (1), length (2), value …
//! ```
//! From haproxy.org's `proxy-protocol.txt`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use thiserror::Error;

/// The longest header of version 1, its end of line included.
const V1_BYTES_MAX: usize = 107;
/// What a header of version 2 may have behind its first 16 bytes: addresses take 36, a name 255, what clouds add some dozens.
pub const V2_BYTES_MAX: usize = 2048;
/// Fields that are kept of one header.
const FIELDS_MAX: usize = 16;

const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
const V2_HEAD: usize = 16;
const WORD: &[u8] = b"PROXY ";

/// The field that names the host which the client asked for, as its TLS said.
pub const AUTHORITY: u8 = 0x02;
/// Types that everyone gives a meaning of their own.
pub const CUSTOM: RangeInclusive<u8> = 0xe0..=0xef;
const CRC32C: u8 = 0x03;

/// What a balancer said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProxyHeader {
    /// `None` where it speaks for itself, as health checks do, or for a client that is not of IPv4 or IPv6.
    pub ends: Option<Ends>,
    /// The name and the custom fields of version 2, by their type; of two of one type the first.
    pub fields: Vec<(u8, Vec<u8>)>,
}

/// Both ends of a client's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    pub client: SocketAddr,
    /// Where it connected to.
    pub server: SocketAddr,
}

/// What begins like no header, or is a broken one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("no PROXY header: {0}")]
pub struct NoProxyHeader(&'static str);

/// Which form is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyVersion {
    V1,
    V2,
}

/// Whether these first bytes of a client's are a PROXY header's; as those of a packet they would announce more than a login has.
pub fn is_proxy_header(first: [u8; 4]) -> bool {
    WORD.starts_with(&first) || SIGNATURE.starts_with(&first)
}

impl ProxyHeader {
    /// Reads a header from the front of what has come, and how many bytes it took; `None` while it may still become one.
    ///
    /// # Errors
    /// As soon as it cannot become one any more.
    pub fn read(bytes: &[u8]) -> Result<Option<(Self, usize)>, NoProxyHeader> {
        let known = bytes.len().min(SIGNATURE.len());
        if bytes[..known] == SIGNATURE[..known] {
            return read_v2(bytes);
        }
        let known = bytes.len().min(WORD.len());
        if bytes[..known] == WORD[..known] {
            return read_v1(bytes);
        }
        Err(NoProxyHeader("it begins otherwise"))
    }

    /// The value of a field.
    pub fn field(&self, kind: u8) -> Option<&[u8]> {
        self.fields.iter().find(|(known, _)| *known == kind).map(|(_, value)| &value[..])
    }
}

fn read_v1(bytes: &[u8]) -> Result<Option<(ProxyHeader, usize)>, NoProxyHeader> {
    let front = &bytes[..bytes.len().min(V1_BYTES_MAX)];
    let Some(end) = front.windows(2).position(|two| two == b"\r\n") else {
        let whole = front.len() == V1_BYTES_MAX;
        return if whole { Err(NoProxyHeader("its line has no end")) } else { Ok(None) };
    };
    let line = std::str::from_utf8(&front[WORD.len().min(end)..end])
        .map_err(|_| NoProxyHeader("its line is no text"))?;
    let read = end + 2;
    let mut words = line.split(' ');
    let family = words.next().unwrap_or_default();
    if family == "UNKNOWN" {
        return Ok(Some((ProxyHeader::default(), read)));
    }
    let mut word = || words.next().ok_or(NoProxyHeader("its line lacks a word"));
    let (client, server, from, to) = (word()?, word()?, word()?, word()?);
    if words.next().is_some() {
        return Err(NoProxyHeader("its line has too many words"));
    }
    let address = |text: &str| -> Result<IpAddr, NoProxyHeader> {
        match family {
            "TCP4" => text.parse::<Ipv4Addr>().map(IpAddr::V4).ok(),
            "TCP6" => text.parse::<Ipv6Addr>().map(IpAddr::V6).ok(),
            _ => return Err(NoProxyHeader("its family is neither TCP4 nor TCP6")),
        }
        .ok_or(NoProxyHeader("an address of it is none"))
    };
    let port = |text: &str| -> Result<u16, NoProxyHeader> {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse().ok().filter(|_| digits).ok_or(NoProxyHeader("a port of it is none"))
    };
    let ends = Ends {
        client: SocketAddr::new(address(client)?, port(from)?),
        server: SocketAddr::new(address(server)?, port(to)?),
    };
    Ok(Some((ProxyHeader { ends: Some(ends), fields: Vec::new() }, read)))
}

fn read_v2(bytes: &[u8]) -> Result<Option<(ProxyHeader, usize)>, NoProxyHeader> {
    let Some(head) = bytes.get(..V2_HEAD) else { return Ok(None) };
    let length = usize::from(u16::from_be_bytes([head[14], head[15]]));
    if length > V2_BYTES_MAX {
        return Err(NoProxyHeader("it is longer than any that is known"));
    }
    let local = match head[12] {
        0x20 => true,
        0x21 => false,
        _ => return Err(NoProxyHeader("its version or its command is not known")),
    };
    let read = V2_HEAD + length;
    let Some(whole) = bytes.get(..read) else { return Ok(None) };
    let body = &whole[V2_HEAD..];
    let addresses = match head[13] {
        // Who speaks for itself tells nothing that counts; what is no family is unspecified.
        _ if local => 0,
        0x11 => 12,
        0x21 => 36,
        0x31 => 216,
        0x00 => 0,
        _ => return Err(NoProxyHeader("its family or its transport is not TCP's")),
    };
    let Some((place, fields)) = body.split_at_checked(addresses) else {
        return Err(NoProxyHeader("it is too short for its addresses"));
    };
    if local {
        return Ok(Some((ProxyHeader::default(), read)));
    }
    let ends = match head[13] {
        0x11 => Some((ip4(&place[..4]), ip4(&place[4..8]), &place[8..])),
        0x21 => Some((ip6(&place[..16]), ip6(&place[16..32]), &place[32..])),
        _ => None,
    }
    .map(|(client, server, ports)| Ends {
        client: SocketAddr::new(client, u16::from_be_bytes([ports[0], ports[1]])),
        server: SocketAddr::new(server, u16::from_be_bytes([ports[2], ports[3]])),
    });
    let mut header = ProxyHeader { ends, fields: Vec::new() };
    // Of a client whose family is unspecified nothing behind the head is to be believed.
    if head[13] != 0 {
        read_fields(whole, fields, &mut header.fields)?;
    }
    Ok(Some((header, read)))
}

fn read_fields(whole: &[u8], mut rest: &[u8], kept: &mut Vec<(u8, Vec<u8>)>) -> Result<(), NoProxyHeader> {
    while !rest.is_empty() {
        let Some((&[kind, high, low], behind)) = rest.split_first_chunk::<3>() else {
            return Err(NoProxyHeader("a field of it is cut"));
        };
        let length = usize::from(u16::from_be_bytes([high, low]));
        let Some((value, after)) = behind.split_at_checked(length) else {
            return Err(NoProxyHeader("a field of it is cut"));
        };
        if kind == CRC32C {
            let told = <[u8; 4]>::try_from(value).map_err(|_| NoProxyHeader("its checksum is cut"))?;
            let at = whole.len() - behind.len();
            // The sum is of the header with zeros where the sum stands.
            let sum = crc32c::crc32c_append(crc32c::crc32c(&whole[..at]), &[0; 4]);
            if crc32c::crc32c_append(sum, &whole[at + 4..]) != u32::from_be_bytes(told) {
                return Err(NoProxyHeader("its checksum is not that of its bytes"));
            }
        }
        let wanted = kind == AUTHORITY || CUSTOM.contains(&kind);
        if wanted && kept.len() < FIELDS_MAX && !kept.iter().any(|(known, _)| *known == kind) {
            kept.push((kind, value.to_vec()));
        }
        rest = after;
    }
    Ok(())
}

fn ip4(bytes: &[u8]) -> IpAddr {
    <[u8; 4]>::try_from(bytes).map_or(Ipv4Addr::UNSPECIFIED, Ipv4Addr::from).into()
}

fn ip6(bytes: &[u8]) -> IpAddr {
    <[u8; 16]>::try_from(bytes).map_or(Ipv6Addr::UNSPECIFIED, Ipv6Addr::from).into()
}

impl ProxyVersion {
    /// A header that tells `ends`, or that its sender speaks for itself.
    pub fn write(self, ends: Option<Ends>) -> Vec<u8> {
        let Some(ends) = ends.map(Ends::of_one_family) else {
            return match self {
                Self::V1 => b"PROXY UNKNOWN\r\n".to_vec(),
                Self::V2 => [&SIGNATURE[..], &[0x20, 0, 0, 0]].concat(),
            };
        };
        let Ends { client, server } = ends;
        match self {
            Self::V1 => {
                let family = if client.is_ipv4() { "TCP4" } else { "TCP6" };
                let (from, to) = (client.port(), server.port());
                format!("PROXY {family} {} {} {from} {to}\r\n", client.ip(), server.ip()).into_bytes()
            }
            Self::V2 => {
                let mut body = Vec::with_capacity(36);
                for ip in [client.ip(), server.ip()] {
                    match ip {
                        IpAddr::V4(ip) => body.extend_from_slice(&ip.octets()),
                        IpAddr::V6(ip) => body.extend_from_slice(&ip.octets()),
                    }
                }
                body.extend_from_slice(&client.port().to_be_bytes());
                body.extend_from_slice(&server.port().to_be_bytes());
                let family = if client.is_ipv4() { 0x11 } else { 0x21 };
                let length = if client.is_ipv4() { 12 } else { 36 };
                [&SIGNATURE[..], &[0x21, family, 0, length], &body].concat()
            }
        }
    }
}

impl Ends {
    /// Both as IPv4, where both can be, or both as IPv6: a header has room for one family.
    fn of_one_family(self) -> Self {
        let plain = |end: SocketAddr| SocketAddr::new(end.ip().to_canonical(), end.port());
        let (client, server) = (plain(self.client), plain(self.server));
        if client.is_ipv4() == server.is_ipv4() {
            return Self { client, server };
        }
        let wide = |end: SocketAddr| match end.ip() {
            IpAddr::V4(ip) => SocketAddr::new(ip.to_ipv6_mapped().into(), end.port()),
            IpAddr::V6(_) => end,
        };
        Self { client: wide(client), server: wide(server) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ends(client: &str, server: &str) -> Ends {
        Ends { client: client.parse().unwrap(), server: server.parse().unwrap() }
    }

    fn v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let length = u16::try_from(body.len()).unwrap().to_be_bytes();
        [&SIGNATURE[..], &[command, family], &length, body].concat()
    }

    const FOUR: [u8; 12] = [192, 0, 2, 7, 192, 0, 2, 1, 0xc7, 0x38, 0x0c, 0xea];

    #[test]
    fn headers_of_both_versions_come_back_and_are_awaited_byte_by_byte() {
        let four = ends("192.0.2.7:51000", "192.0.2.1:3306");
        let six = ends("[2001:db8::7]:51000", "[2001:db8::1]:3306");
        for version in [ProxyVersion::V1, ProxyVersion::V2] {
            for told in [Some(four), Some(six), None] {
                let written = version.write(told);
                let mut with_more = written.clone();
                with_more.extend_from_slice(b"more");
                for end in 0..written.len() {
                    assert_eq!(ProxyHeader::read(&written[..end]), Ok(None), "cut at {end}");
                }
                let (header, read) = ProxyHeader::read(&with_more).unwrap().unwrap();
                assert_eq!((header.ends, read), (told, written.len()));
            }
        }
        assert_eq!(
            ProxyVersion::V1.write(Some(four)),
            b"PROXY TCP4 192.0.2.7 192.0.2.1 51000 3306\r\n".to_vec()
        );
        assert_eq!(ProxyVersion::V2.write(Some(four)), v2(0x21, 0x11, &FOUR));
    }

    #[test]
    fn ends_of_two_families_are_told_as_one() {
        let mixed = ends("192.0.2.7:1", "[2001:db8::1]:2");
        let told = ends("[::ffff:192.0.2.7]:1", "[2001:db8::1]:2");
        let mapped = ends("[::ffff:192.0.2.7]:1", "192.0.2.1:2");
        for version in [ProxyVersion::V1, ProxyVersion::V2] {
            let read = |ends| ProxyHeader::read(&version.write(Some(ends))).unwrap().unwrap().0.ends;
            assert_eq!(read(mixed), Some(told));
            assert_eq!(read(mapped), Some(ends("192.0.2.7:1", "192.0.2.1:2")));
        }
    }

    #[test]
    fn lines_that_are_no_header_of_version_1_are_refused() {
        for line in [
            "PROXY TCP4 192.0.2.7 192.0.2.1 51000\r\n",
            "PROXY TCP4 192.0.2.7 192.0.2.1 51000 3306 1\r\n",
            "PROXY TCP4  192.0.2.7 192.0.2.1 51000 3306\r\n",
            "PROXY TCP4 192.0.2.7 192.0.2.1 +5100 3306\r\n",
            "PROXY TCP4 192.0.2.7 192.0.2.1 65536 3306\r\n",
            "PROXY TCP4 192.0.2.07 192.0.2.1 51000 3306\r\n",
            "PROXY TCP4 ::1 ::1 51000 3306\r\n",
            "PROXY TCP6 192.0.2.7 192.0.2.1 51000 3306\r\n",
            "PROXY UDP4 192.0.2.7 192.0.2.1 51000 3306\r\n",
            "PROXY \r\n",
            "PROXY TCP4\r\n",
            "PROXY \u{e9}\r\n",
            "proxy TCP4 192.0.2.7 192.0.2.1 51000 3306\r\n",
            "GET / HTTP/1.1\r\n",
            "PROXX",
        ] {
            assert!(ProxyHeader::read(line.as_bytes()).is_err(), "{line}");
        }
        let (unknown, read) =
            ProxyHeader::read(b"PROXY UNKNOWN ffff:f...f:ffff 65535 65535\r\n").unwrap().unwrap();
        assert_eq!((unknown, read), (ProxyHeader::default(), 43));
        let endless = [b"PROXY UNKNOWN ".to_vec(), vec![b'x'; 200]].concat();
        assert_eq!(ProxyHeader::read(&endless[..V1_BYTES_MAX - 1]), Ok(None));
        assert!(ProxyHeader::read(&endless[..V1_BYTES_MAX]).is_err());
    }

    #[test]
    fn version_2_speaks_for_itself_or_for_a_client_and_keeps_the_fields_that_are_of_use() {
        let fields = [
            &FOUR[..],
            &[0x01, 0, 2, b'h', b'2'],
            &[AUTHORITY, 0, 6, b's', b'h', b'o', b'p', b'.', b'a'],
            &[0xe0, 0, 1, 7],
            &[0xe0, 0, 1, 8],
            &[0xef, 0, 0],
            &[0xf0, 0, 1, 9],
        ]
        .concat();
        let (header, _) = ProxyHeader::read(&v2(0x21, 0x11, &fields)).unwrap().unwrap();
        assert_eq!(header.ends, Some(ends("192.0.2.7:51000", "192.0.2.1:3306")));
        assert_eq!(header.field(AUTHORITY), Some(&b"shop.a"[..]));
        assert_eq!((header.field(0xe0), header.field(0xef)), (Some(&[7][..]), Some(&[][..])));
        assert_eq!((header.field(0x01), header.field(0xf0)), (None, None));
        // Of a health check and of an unknown family nothing counts, a socket's path is no address.
        for bytes in [v2(0x20, 0x11, &fields), v2(0x20, 0, b"junk"), v2(0x21, 0, &fields)] {
            assert_eq!(ProxyHeader::read(&bytes).unwrap().unwrap(), (ProxyHeader::default(), bytes.len()));
        }
        let unix = v2(0x21, 0x31, &[&[7; 216][..], &[0xe1, 0, 1, 1]].concat());
        let (header, _) = ProxyHeader::read(&unix).unwrap().unwrap();
        assert_eq!((header.ends, header.field(0xe1)), (None, Some(&[1][..])));
        for bad in [
            v2(0x31, 0x11, &FOUR),
            v2(0x22, 0x11, &FOUR),
            v2(0x21, 0x12, &FOUR),
            v2(0x21, 0x41, &FOUR),
            v2(0x21, 0x11, &FOUR[..11]),
            v2(0x21, 0x21, &FOUR),
            v2(0x21, 0x11, &[&FOUR[..], &[0xe0]].concat()),
            v2(0x21, 0x11, &[&FOUR[..], &[0xe0, 0, 9, 1]].concat()),
            v2(0x21, 0x11, &[0; V2_BYTES_MAX + 1]),
        ] {
            assert!(ProxyHeader::read(&bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_checksum_is_checked_where_there_is_one() {
        let mut bytes = v2(0x21, 0x11, &[&FOUR[..], &[0xe0, 0, 1, 7], &[CRC32C, 0, 4, 0, 0, 0, 0]].concat());
        let sum = crc32c::crc32c(&bytes);
        let at = bytes.len() - 4;
        bytes[at..].copy_from_slice(&sum.to_be_bytes());
        assert!(ProxyHeader::read(&bytes).is_ok());
        // All but the type of the sum's own field, which is another field then.
        for index in (V2_HEAD..bytes.len()).filter(|index| *index != at - 3) {
            let mut broken = bytes.clone();
            broken[index] ^= 1;
            assert!(ProxyHeader::read(&broken).is_err(), "byte {index}");
        }
    }

    #[test]
    fn a_packet_is_told_from_a_header_by_its_first_bytes() {
        assert!(is_proxy_header(*b"PROX") && is_proxy_header(*b"\r\n\r\n"));
        assert!(!is_proxy_header([32, 0, 0, 1]));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), at in 0..2usize, family in 0..8usize) {
            let family = [0x11, 0x21, 0x31, 0, 0x12, 0x22, 0x1f, 0xff][family];
            let length = u16::try_from(bytes.len()).unwrap().to_be_bytes();
            let head = [&SIGNATURE[..], &[0x20 | at as u8, family], &length].concat();
            for front in [&b""[..], b"PROXY ", b"PROXY TCP4 ", b"PROXY TCP6 ::1 ", &SIGNATURE, &head] {
                let whole = [front, &bytes].concat();
                match ProxyHeader::read(&whole) {
                    Ok(Some((header, read))) => {
                        prop_assert!(read <= whole.len() && header.fields.len() <= FIELDS_MAX);
                        // What is behind a header changes nothing of it, and before its end there is none.
                        prop_assert_eq!(ProxyHeader::read(&whole[..read]), Ok(Some((header, read))));
                        prop_assert_eq!(ProxyHeader::read(&whole[..read - 1]), Ok(None));
                    }
                    Ok(None) => prop_assert!(whole.len() < V2_HEAD + V2_BYTES_MAX),
                    Err(_) => {}
                }
            }
        }
    }
}
