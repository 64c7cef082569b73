//! The numbers of packets within compressed frames.
//!
//! Each side of a plain connection counts packets on from the other's last. Within frames only the frames are numbered so;
//! packets take over the number of the frame that they begin when the sides take turns or a result ends, and count on from
//! there, so that they depend on how an answer was cut into frames. What passes between a plain and a compressed connection,
//! or between two that are cut otherwise, is therefore numbered anew: as if plain when it comes, as frames have it when it goes.

use super::PAYLOAD_MAX;

/// The numbers of one compressed connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PacketNumbers {
    /// The other side is a client: what it numbers 0 is a command.
    client: bool,
    /// The client sends a file, whose numbers only go on.
    file: bool,
    /// Of the next packet, as if plain.
    plain: u8,
    /// Of the next packet that is sent, within frames.
    framed: u8,
    /// What is sent next takes over its frame's number.
    turn: bool,
    coming: Walk,
    going: Walk,
}

impl PacketNumbers {
    /// `client`: the other side is one.
    pub fn new(client: bool) -> Self {
        let (coming, going) = (Walk::default(), Walk::default());
        Self { client, file: false, plain: 0, framed: 0, turn: true, coming, going }
    }

    /// Numbers the packets in what has come as if they were plain.
    pub fn came(&mut self, bytes: &mut [u8]) {
        self.turn = true;
        let mut at = 0;
        while let Some((place, goes_on)) = self.coming.next(bytes, &mut at) {
            if self.client && !self.file && bytes[place] == 0 && !goes_on {
                self.plain = 0;
            }
            bytes[place] = self.plain;
            self.plain = self.plain.wrapping_add(1);
        }
    }

    /// Numbers the packets in what goes as frames have it, the next of which is `frame`.
    pub fn goes(&mut self, bytes: &mut [u8], frame: u8) {
        if std::mem::take(&mut self.turn) {
            self.framed = frame;
        }
        let mut at = 0;
        while let Some((place, _)) = self.going.next(bytes, &mut at) {
            self.plain = bytes[place].wrapping_add(1);
            bytes[place] = self.framed;
            self.framed = self.framed.wrapping_add(1);
        }
    }

    /// Whether all packets that began have ended, in both directions: then nothing of this is needed for going on.
    pub fn is_between_packets(&self) -> bool {
        self.coming.header == 0 && self.going.header == 0 && !self.file
    }

    /// A result has ended, and another follows.
    pub fn end_result(&mut self) {
        self.turn = true;
    }

    /// Packets of the client are a file's from here on, or commands again.
    pub fn file(&mut self, file: bool) {
        self.file = file;
    }

    /// Where the first command begins in what goes to a server, and the next one does, or it all ends.
    pub fn command_in(&self, bytes: &[u8]) -> Option<(usize, usize)> {
        if self.client || self.file {
            return None;
        }
        let (mut walk, mut at, mut first) = (self.going, 0, None);
        while let Some((place, goes_on)) = walk.next(bytes, &mut at) {
            // A header that began with other bytes cannot be told from the middle of something, and is not.
            let Some(begin) = place.checked_sub(3).filter(|_| bytes[place] == 0 && !goes_on) else {
                continue;
            };
            match first {
                None => first = Some(begin),
                Some(first) => return Some((first, begin)),
            }
        }
        first.map(|first| (first, bytes.len()))
    }

    /// What goes next begins a command.
    pub fn begin_command(&mut self) {
        self.turn = true;
    }
}

/// Finds the headers in a stream that comes in pieces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Walk {
    /// Bytes of the present header that have passed.
    header: u8,
    /// Of the present payload, as far as it is known; then what is still to pass.
    left: usize,
    /// The packet before was as long as one can be.
    goes_on: bool,
}

impl Walk {
    /// The place of the next packet's number in `bytes` from `at` on, which is then behind it, and whether that packet goes on
    /// with a longer one's payload.
    fn next(&mut self, bytes: &[u8], at: &mut usize) -> Option<(usize, bool)> {
        while *at < bytes.len() {
            let here = *at;
            match self.header {
                4 => {
                    let passed = self.left.min(bytes.len() - here);
                    *at += passed;
                    self.left -= passed;
                    if self.left == 0 {
                        self.header = 0;
                    }
                }
                3 => {
                    *at += 1;
                    self.header = if self.left == 0 { 0 } else { 4 };
                    let goes_on = std::mem::replace(&mut self.goes_on, self.left == PAYLOAD_MAX);
                    return Some((here, goes_on));
                }
                known => {
                    *at += 1;
                    let low = if known == 0 { 0 } else { self.left };
                    self.left = low | usize::from(bytes[here]) << (8 * known);
                    self.header += 1;
                }
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::super::packet;
    use super::*;

    fn numbered(numbers: &[u8]) -> Vec<u8> {
        numbers.iter().enumerate().flat_map(|(at, number)| packet(*number, &vec![9; at * 3])).collect()
    }

    /// In pieces of every length.
    fn pieces(mut walk: impl FnMut(&mut [u8]), bytes: &[u8], piece: usize) -> Vec<u8> {
        let mut out = bytes.to_vec();
        out.chunks_mut(piece).for_each(&mut walk);
        out
    }

    #[test]
    fn an_answer_begins_with_its_frames_number_and_comes_as_if_plain() {
        for piece in [1, 2, 3, 5, 1000] {
            let mut client = PacketNumbers::new(true);
            // A command of one packet in three frames; two results, cut into four frames.
            client.came(&mut packet(0, b"\x03select 1"));
            assert_eq!(
                pieces(|part| client.goes(part, 3), &numbered(&[1, 2, 3]), piece),
                numbered(&[3, 4, 5])
            );
            client.end_result();
            assert_eq!(pieces(|part| client.goes(part, 7), &numbered(&[4, 5]), piece), numbered(&[7, 8]));
            // The next command begins anew, whatever was before.
            assert_eq!(pieces(|part| client.came(part), &numbered(&[0]), piece), numbered(&[0]));

            let mut server = PacketNumbers::new(false);
            server.begin_command();
            assert_eq!(pieces(|part| server.goes(part, 0), &numbered(&[0]), piece), numbered(&[0]));
            assert_eq!(pieces(|part| server.came(part), &numbered(&[9, 10, 4]), piece), numbered(&[1, 2, 3]));
            server.begin_command();
            assert_eq!(pieces(|part| server.goes(part, 0), &numbered(&[0]), piece), numbered(&[0]));
            assert_eq!(pieces(|part| server.came(part), &numbered(&[1]), piece), numbered(&[1]));
        }
    }

    #[test]
    fn a_file_goes_on_from_the_request_for_it_also_where_its_numbers_come_round() {
        let mut client = PacketNumbers::new(true);
        client.came(&mut packet(0, b"\x03load data"));
        client.goes(&mut packet(1, b"\xfbrows"), 1);
        client.file(true);
        let mut all = numbered(&[40, 255, 0, 1, 0]);
        client.came(&mut all);
        assert_eq!(all, numbered(&[2, 3, 4, 5, 6]));
        client.file(false);
        let mut ok = packet(7, &[0, 0, 0, 2, 0, 0, 0]);
        client.goes(&mut ok, 99);
        assert_eq!(ok[3], 99);
        let mut next = packet(0, b"\x0e");
        client.came(&mut next);
        assert_eq!(next[3], 0);
    }

    #[test]
    fn commands_are_found_in_what_goes_to_a_server() {
        let mut server = PacketNumbers::new(false);
        let one = packet(0, b"\x03do 1");
        let two = [&one[..], &packet(0, b"\x0e")].concat();
        assert_eq!(server.command_in(&two), Some((0, one.len())));
        assert_eq!(server.command_in(&one), Some((0, one.len())));
        assert_eq!(server.command_in(&packet(3, b"a file's")), None);
        server.goes(&mut one[..6].to_vec(), 0);
        // The rest of the first, and then the second.
        assert_eq!(server.command_in(&two[6..]), Some((one.len() - 6, two.len() - 6)));
        let mut server = PacketNumbers::new(false);
        server.file(true);
        assert_eq!(server.command_in(&one), None);
        assert_eq!(PacketNumbers::new(true).command_in(&one), None);
    }

    #[test]
    fn a_payload_of_several_packets_is_no_command_of_its_own() {
        let mut client = PacketNumbers::new(true);
        let mut long = [&[0xff, 0xff, 0xff, 0][..], &vec![3; PAYLOAD_MAX], &[1, 0, 0, 0, 3]].concat();
        client.came(&mut long);
        assert_eq!(long[PAYLOAD_MAX + 7], 1);
    }
}
