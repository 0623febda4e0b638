//! Requests whose `:authority` begins with a scheme, made such as HTTP/2 allows.
//!
//! etcd's Go clients up to 3.4 send `:authority: http://127.0.0.1:2379` to a single endpoint
//! (`etcdctl endpoint status` and its like), and the HTTP/2 library refuses such a request before
//! it can be seen. So the bytes are mended on their way in: the literal in the header block gets
//! `x--` in place of `://`. That is as long as before, in the Huffman code too, so no length in any
//! frame changes and both ends' header tables stay alike. Nothing here asks for the authority of
//! a gRPC call.
//!
//! A connection always sends the same authority, so the first header block decides whether the
//! connection is looked at further. To any other client this costs one look.

use std::ops::Range;

const PREFACE_BYTES: usize = 24;
const FRAME_HEADER_BYTES: usize = 9;
/// The largest frame that the client port takes.
const FRAME_BYTES_MAX: usize = 16 << 10;

const HEADERS: u8 = 1;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;

/// `:authority` in the static table of header names.
const AUTHORITY_INDEX: usize = 1;

/// A scheme, and what stands in its place; and the same in the Huffman code of HPACK.
struct Scheme {
    found: &'static [u8],
    mended: &'static [u8],
    found_code: Code,
    mended_code: Code,
}

/// The last bits of a word, and how many they are.
#[derive(Clone, Copy)]
struct Code {
    bits: u64,
    len: u32,
}

/// One letter's code after another.
const fn code(letters: &[(u64, u32)]) -> Code {
    let (mut bits, mut len, mut at) = (0, 0, 0);
    while at < letters.len() {
        bits = bits << letters[at].1 | letters[at].0;
        len += letters[at].1;
        at += 1;
    }
    Code { bits, len }
}

const H: (u64, u32) = (0b10_0111, 6);
const T: (u64, u32) = (0b0_1001, 5);
const P: (u64, u32) = (0b10_1011, 6);
const S: (u64, u32) = (0b0_1000, 5);
const X: (u64, u32) = (0b111_1001, 7);
const COLON: (u64, u32) = (0b101_1100, 7);
const SLASH: (u64, u32) = (0b01_1000, 6);
const DASH: (u64, u32) = (0b01_0110, 6);

const SCHEMES: [Scheme; 2] = [
    Scheme {
        found: b"http://",
        mended: b"httpx--",
        found_code: code(&[H, T, T, P, COLON, SLASH, SLASH]),
        mended_code: code(&[H, T, T, P, X, DASH, DASH]),
    },
    Scheme {
        found: b"https://",
        mended: b"httpsx--",
        found_code: code(&[H, T, T, P, S, COLON, SLASH, SLASH]),
        mended_code: code(&[H, T, T, P, S, X, DASH, DASH]),
    },
];

/// The inbound bytes of one connection, from its first on.
#[derive(Debug)]
pub(super) struct Mender {
    held: Vec<u8>,
    /// Of what is held, what may be read.
    ready_bytes: usize,
    /// Where the next frame begins in what is held; further than that while a frame passes by.
    frame_at: usize,
    /// Nothing is looked at any more.
    off: bool,
    /// A block was mended, so others will have to be.
    mends: bool,
}

impl Mender {
    pub(super) fn new() -> Self {
        let held = Vec::new();
        Self { held, ready_bytes: 0, frame_at: PREFACE_BYTES, off: false, mends: false }
    }

    /// Nothing is held and nothing will be: bytes may pass by.
    pub(super) fn is_done(&self) -> bool {
        self.off && self.held.is_empty()
    }

    /// Takes bytes as they came.
    pub(super) fn put(&mut self, bytes: &[u8]) {
        self.held.extend_from_slice(bytes);
        while !self.off && self.pass_frame() {}
        self.ready_bytes = if self.off { self.held.len() } else { self.ready() };
    }

    /// No more bytes will come.
    pub(super) fn end(&mut self) {
        self.off = true;
        self.ready_bytes = self.held.len();
    }

    /// Gives at most `bytes_max` of what may be read, to be taken by [`Self::taken`].
    pub(super) fn readable(&self, bytes_max: usize) -> &[u8] {
        &self.held[..self.ready_bytes.min(bytes_max)]
    }

    /// So many bytes were read.
    pub(super) fn taken(&mut self, bytes: usize) {
        self.held.drain(..bytes);
        self.ready_bytes -= bytes;
        self.frame_at = self.frame_at.saturating_sub(bytes);
    }

    /// What may be read before the frame at hand is whole.
    fn ready(&self) -> usize {
        self.frame_at.min(self.held.len())
    }

    /// Looks at the frame at hand if it is there; whether there may be another.
    fn pass_frame(&mut self) -> bool {
        let body_at = self.frame_at + FRAME_HEADER_BYTES;
        let Some(head) = self.held.get(self.frame_at..body_at) else { return false };
        let bytes = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        let (kind, flags) = (head[3], head[4]);
        if bytes > FRAME_BYTES_MAX {
            self.off = true;
            return false;
        }
        if kind == HEADERS {
            let Some(body) = self.held.get_mut(body_at..body_at + bytes) else { return false };
            let mended = block(body, flags).is_some_and(mend_block);
            self.mends |= mended;
            self.off = !self.mends;
        }
        self.frame_at = body_at + bytes;
        self.frame_at < self.held.len()
    }
}

/// The header block in the body of a HEADERS frame.
fn block(body: &mut [u8], flags: u8) -> Option<&mut [u8]> {
    let mut range = Range { start: 0, end: body.len() };
    if flags & PADDED != 0 {
        range.end = range.end.checked_sub(usize::from(*body.first()?))?;
        range.start += 1;
    }
    if flags & PRIORITY != 0 {
        range.start += 5;
    }
    body.get_mut(range)
}

/// Mends the authority in a header block, if it is there as a literal; whether it was.
fn mend_block(block: &mut [u8]) -> bool {
    let mut at = 0;
    while at < block.len() {
        match field(block, &mut at) {
            Some(Field::Authority(value))
                if mend(&mut block[value.bytes.clone()], value.huffman) =>
            {
                return true;
            }
            Some(Field::Authority(_) | Field::Other) => {}
            // Not whole, or not HPACK: the library will say so.
            None => return false,
        }
    }
    false
}

/// Where a string is, and how it is written.
struct Text {
    bytes: Range<usize>,
    huffman: bool,
}

/// One field of a header block.
enum Field {
    /// A literal `:authority`, and its value.
    Authority(Text),
    Other,
}

/// Steps over one field; nothing if it is not whole.
fn field(block: &[u8], at: &mut usize) -> Option<Field> {
    let first = *block.get(*at)?;
    let prefix_bits = match first {
        0x80.. => {
            integer(block, at, 7)?;
            return Some(Field::Other);
        }
        0x20..0x40 => {
            integer(block, at, 5)?;
            return Some(Field::Other);
        }
        0x40..0x80 => 6,
        0..0x20 => 4,
    };
    let name = integer(block, at, prefix_bits)?;
    if name == 0 {
        text(block, at)?;
    }
    let value = text(block, at)?;
    Some(if name == AUTHORITY_INDEX { Field::Authority(value) } else { Field::Other })
}

fn text(block: &[u8], at: &mut usize) -> Option<Text> {
    let huffman = block.get(*at)? & 0x80 != 0;
    let bytes = integer(block, at, 7)?;
    let start = *at;
    *at = start.checked_add(bytes).filter(|end| *end <= block.len())?;
    Some(Text { bytes: start..*at, huffman })
}

/// An integer whose first byte has `prefix_bits` for it.
fn integer(block: &[u8], at: &mut usize, prefix_bits: u32) -> Option<usize> {
    let mask = (1usize << prefix_bits) - 1;
    let mut value = usize::from(*block.get(*at)?) & mask;
    *at += 1;
    if value < mask {
        return Some(value);
    }
    for shift in [0, 7, 14] {
        let next = usize::from(*block.get(*at)?);
        *at += 1;
        value += (next & 0x7f) << shift;
        if next & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// Mends an authority that begins with a scheme; whether it did.
fn mend(value: &mut [u8], huffman: bool) -> bool {
    for scheme in &SCHEMES {
        if huffman {
            let mut word = [0; 8];
            let bytes = value.len().min(8);
            word[..bytes].copy_from_slice(&value[..bytes]);
            let bits = u64::from_be_bytes(word);
            let Code { bits: found, len } = scheme.found_code;
            if bits >> (64 - len) == found && bytes * 8 > len as usize {
                let changed = (found ^ scheme.mended_code.bits) << (64 - len);
                value[..bytes].copy_from_slice(&(bits ^ changed).to_be_bytes()[..bytes]);
                return true;
            }
        } else if value.starts_with(scheme.found) {
            value[..scheme.mended.len()].copy_from_slice(scheme.mended);
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

    fn letter(letter: u8) -> (u64, u32) {
        match letter {
            b'h' => H,
            b't' => T,
            b'p' => P,
            b's' => S,
            b'x' => X,
            b':' => COLON,
            b'/' => SLASH,
            b'-' => DASH,
            b'0' => (0, 5),
            b'1' => (1, 5),
            b'2' => (2, 5),
            b'.' => (0b01_0111, 6),
            b'7' => (0b01_1101, 6),
            _ => panic!("{letter}"),
        }
    }

    fn huffman(text: &str) -> Vec<u8> {
        let mut bits: Vec<bool> = Vec::new();
        for (code, len) in text.bytes().map(letter) {
            bits.extend((0..len).rev().map(|bit| code >> bit & 1 == 1));
        }
        // The padding is ones.
        bits.resize(bits.len().next_multiple_of(8), true);
        let byte = |bits: &[bool]| bits.iter().fold(0, |byte, bit| byte << 1 | u8::from(*bit));
        bits.chunks(8).map(byte).collect()
    }

    fn literal(first: u8, bytes: &[u8], huffman: bool) -> Vec<u8> {
        let len = u8::try_from(bytes.len()).expect("short") | if huffman { 0x80 } else { 0 };
        [&[first, len], bytes].concat()
    }

    fn frame(kind: u8, flags: u8, body: &[u8]) -> Vec<u8> {
        let len = u32::try_from(body.len()).expect("short").to_be_bytes();
        [&len[1..], &[kind, flags, 0, 0, 0, 1], body].concat()
    }

    /// What comes out when the bytes come in as pieces of `step`.
    fn through(bytes: &[u8], step: usize) -> (Vec<u8>, Mender) {
        let mut mender = Mender::new();
        let mut out = Vec::new();
        for piece in bytes.chunks(step) {
            mender.put(piece);
            loop {
                let read = mender.readable(7).to_vec();
                if read.is_empty() {
                    break;
                }
                mender.taken(read.len());
                out.extend(read);
            }
        }
        mender.end();
        out.extend_from_slice(mender.readable(usize::MAX));
        (out, mender)
    }

    /// A connection that sends this authority, as a literal, twice, between other frames.
    fn connection(authority: &[u8], is_huffman: bool) -> Vec<u8> {
        let method = [0x83];
        let path = literal(0x44, b"/etcdserverpb.Maintenance/Status", false);
        let named = [&[0x40, 2], &b"te"[..], &[8], b"trailers"].concat();
        let block = [&method[..], &path, &literal(0x41, authority, is_huffman), &named].concat();
        let padded = [&[3, 0, 0, 0, 0, 7][..], &block, &[0; 3]].concat();
        let frames = [
            frame(4, 0, &[0; 6]),
            frame(HEADERS, 4, &block),
            frame(0, 1, b"some data"),
            frame(HEADERS, 4 | PADDED | PRIORITY, &padded),
            frame(0, 1, b"some data"),
        ];
        [PREFACE.to_vec(), frames.concat()].concat()
    }

    #[test]
    fn a_scheme_is_mended_however_it_is_written_and_cut() {
        for (found, mended) in [
            ("http://127.0.0.1:2112", "httpx--127.0.0.1:2112"),
            ("https://127.0.0.1:2112", "httpsx--127.0.0.1:2112"),
        ] {
            for step in [1, 2, 5, 9, 33, 1000] {
                let (out, mender) = through(&connection(found.as_bytes(), false), step);
                assert!(out == connection(mended.as_bytes(), false) && mender.mends, "{step}");
                let (out, mender) = through(&connection(&huffman(found), true), step);
                assert!(out == connection(&huffman(mended), true) && mender.mends, "{step}");
            }
        }
    }

    #[test]
    fn what_is_mended_is_an_authority() {
        let hosts = ["127.0.0.1:2379", "[::1]:2379", "node1:2379", "etcd.example.com"];
        for host in hosts {
            for scheme in &SCHEMES {
                let mended = [scheme.mended, host.as_bytes()].concat();
                assert_eq!(scheme.found.len(), scheme.mended.len());
                assert_eq!(scheme.found_code.len, scheme.mended_code.len);
                let authority = http::uri::Authority::try_from(mended.as_slice());
                assert!(authority.is_ok(), "{host}: {authority:?}");
            }
        }
    }

    #[test]
    fn other_connections_pass_by_after_one_look() {
        for authority in ["127.0.0.1:2112", "http.1:2112", "t"] {
            for step in [1, 9, 1000] {
                let bytes = connection(authority.as_bytes(), false);
                let (out, mender) = through(&bytes, step);
                assert!(out == bytes && mender.off && !mender.mends, "{authority}");
            }
        }
        let huffman = connection(&huffman("127.0.0.1:2112"), true);
        assert_eq!(through(&huffman, 10).0, huffman);
    }

    #[test]
    fn bytes_that_are_no_http2_pass_by() {
        let mut noise: Vec<u8> = PREFACE.to_vec();
        let mut state = 1u32;
        for _ in 0..5000 {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            noise.push((state >> 24) as u8);
        }
        for start in 0..1000 {
            let bytes = [PREFACE, &noise[start..]].concat();
            let (out, mender) = through(&bytes, 100);
            assert!(out == bytes || mender.mends, "{start}");
        }
        let (out, _) = through(b"GET / HTTP/1.1\r\n\r\n", 3);
        assert_eq!(out, b"GET / HTTP/1.1\r\n\r\n");
    }
}
