//! One packet between members, as the tunnel brings it: VXLAN, Ethernet, IPv4, mostly TCP.

/// The tunnel's own header.
const TUNNEL_BYTES: usize = 8;
const ETHERNET_BYTES: usize = 14;
const IP_BYTES: usize = 20;
const TCP_BYTES: usize = 20;
const IP: usize = TUNNEL_BYTES + ETHERNET_BYTES;
const TCP_PROTOCOL: u8 = 6;

const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;

/// An IPv4 packet in its envelopes.
pub struct Packet<'a> {
    bytes: &'a mut [u8],
    /// Where TCP begins, if it is TCP.
    tcp: Option<usize>,
}

impl<'a> Packet<'a> {
    /// The packet in a datagram of the tunnel; nothing where it is none that this network carries.
    pub fn parse(bytes: &'a mut [u8]) -> Option<Self> {
        if bytes.len() < IP + IP_BYTES || bytes[IP - 2..IP] != [8, 0] {
            return None;
        }
        let tcp = IP + usize::from(bytes[IP] & 15) * 4;
        let is_tcp = bytes[IP + 9] == TCP_PROTOCOL && bytes.len() >= tcp + TCP_BYTES;
        Some(Self { bytes, tcp: is_tcp.then_some(tcp) })
    }

    /// The member that sent it: the last byte of its hardware address.
    pub fn from(&self) -> u8 {
        self.bytes[TUNNEL_BYTES + 11]
    }

    /// The member that it is for.
    pub fn to(&self) -> u8 {
        self.bytes[TUNNEL_BYTES + 5]
    }

    /// Whether it is for that TCP port.
    pub fn is_to_port(&self, port: u16) -> bool {
        self.tcp.is_some_and(|tcp| self.bytes[tcp + 2..tcp + 4] == port.to_be_bytes())
    }

    /// Fills in TCP's checksum, which the sender left to hardware that is not there.
    pub fn sum_up(&mut self) {
        if let Some(tcp) = self.tcp {
            sum_up_tcp(self.bytes, tcp);
        }
    }

    /// The datagram by which the receiver of this packet would say that no such connection is
    /// open, unless it is itself such an answer.
    pub fn reset(&self) -> Option<Vec<u8>> {
        let tcp = self.tcp?;
        let old = &self.bytes[tcp..];
        let flags = old[13];
        if flags & RST != 0 {
            return None;
        }
        let mut new = self.bytes[..TUNNEL_BYTES].to_vec();
        let ethernet = &self.bytes[TUNNEL_BYTES..IP];
        new.extend_from_slice(&ethernet[6..12]);
        new.extend_from_slice(&ethernet[..6]);
        new.extend_from_slice(&ethernet[12..14]);
        let total = (IP_BYTES + TCP_BYTES) as u16;
        new.extend_from_slice(&[0x45, 0]);
        new.extend_from_slice(&total.to_be_bytes());
        new.extend_from_slice(&[0, 0, 0x40, 0, 64, TCP_PROTOCOL, 0, 0]);
        new.extend_from_slice(&self.bytes[IP + 16..IP + 20]);
        new.extend_from_slice(&self.bytes[IP + 12..IP + 16]);
        let sum = checksum(0, &new[IP..]);
        new[IP + 10..IP + 12].copy_from_slice(&sum.to_be_bytes());
        new.extend_from_slice(&old[2..4]);
        new.extend_from_slice(&old[..2]);
        if flags & ACK == 0 {
            let taken = u32::from(flags & SYN != 0) + u32::from(flags & FIN != 0);
            let begin = u32::from_be_bytes([old[4], old[5], old[6], old[7]]);
            let header = usize::from(old[12] >> 4) * 4;
            let count = old.len().saturating_sub(header) as u32;
            new.extend_from_slice(&[0; 4]);
            new.extend_from_slice(&begin.wrapping_add(count + taken).to_be_bytes());
            new.extend_from_slice(&[0x50, RST | ACK]);
        } else {
            new.extend_from_slice(&old[8..12]);
            new.extend_from_slice(&[0; 4]);
            new.extend_from_slice(&[0x50, RST]);
        }
        new.extend_from_slice(&[0; 6]);
        sum_up_tcp(&mut new, IP + IP_BYTES);
        Some(new)
    }
}

fn sum_up_tcp(bytes: &mut [u8], tcp: usize) {
    bytes[tcp + 16..tcp + 18].fill(0);
    let count = (bytes.len() - tcp) as u64;
    let addresses = &bytes[IP + 12..IP + 20];
    let pseudo = sum(u64::from(TCP_PROTOCOL) + count, addresses);
    let checksum = checksum(pseudo, &bytes[tcp..]);
    bytes[tcp + 16..tcp + 18].copy_from_slice(&checksum.to_be_bytes());
}

fn sum(start: u64, bytes: &[u8]) -> u64 {
    let (pairs, rest) = bytes.as_chunks::<2>();
    let pairs: u64 = pairs.iter().map(|pair| u64::from(u16::from_be_bytes(*pair))).sum();
    start + pairs + rest.first().map_or(0, |last| u64::from(*last) << 8)
}

fn checksum(start: u64, bytes: &[u8]) -> u16 {
    let mut sum = sum(start, bytes);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}
