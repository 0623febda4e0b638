//! The command's bytes.

use proptest::prelude::*;

use super::*;
use crate::kv::{DecodeError, SnapshotImport, TXN_DEPTH_MAX};

fn decode(bytes: &[u8]) -> Result<Command, DecodeError> {
    Command::decode(&Bytes::copy_from_slice(bytes))
}

#[test]
fn the_bytes_of_commands_are_as_they_were() {
    // Logs outlive programs: these may change only together with the version.
    let put = PutRequest { lease: -1, prev_kv: true, ..put("k", "vw") };
    assert_eq!(&Command::Put(put).encode()[..], b"\x01\x01\x01\x01k\x02vw\x01");
    let delete = Command::DeleteRange(delete("a", "\0"));
    assert_eq!(&delete.encode()[..], b"\x01\x02\x00\x01a\x01\x00");
    let compact = Command::Compact(CompactionRequest { revision: 300 });
    assert_eq!(&compact.encode()[..], b"\x01\x04\xd8\x04");
    let txn = Command::Txn(TxnRequest {
        compare: vec![compare("k", CompareResult::Greater, CompareTarget::Value(bytes("v")))],
        success: vec![RequestOp::Range(RangeRequest { keys_only: true, limit: 3, ..get("k") })],
        failure: vec![],
    });
    let expected =
        b"\x01\x03\x01\x01\x03\x01v\x01k\x00\x01\x00\x01\x00\x00\x01k\x00\x06\0\0\0\0\0\0";
    assert_eq!(&txn.encode()[..], expected);
}

#[test]
fn what_is_decoded_shares_the_buffer() {
    let encoded = Command::Put(put("key", "a value")).encode();
    let Ok(Command::Put(request)) = Command::decode(&encoded) else { panic!() };
    let within = encoded.as_ptr_range();
    assert!(within.contains(&request.value.as_ptr()) && within.contains(&request.key.as_ptr()));
}

#[test]
fn an_unknown_version_or_kind_is_an_error() {
    assert_eq!(decode(&[2, 1]), Err(DecodeError::Version(2)));
    assert_eq!(decode(&[0]), Err(DecodeError::Version(0)));
    for kind in [0, 5, 255] {
        assert_eq!(decode(&[1, kind]), Err(DecodeError::Kind { what: "command", kind }));
    }
}

#[test]
fn bytes_have_to_be_exactly_a_command() {
    let encoded = Command::Put(put("key", "value")).encode();
    for length in 0..encoded.len() {
        assert!(decode(&encoded[..length]).is_err(), "cut to {length}");
    }
    let longer = [&encoded[..], b"x"].concat();
    assert_eq!(decode(&longer), Err(DecodeError::Trailing(1)));
    // A number in more bytes than it needs, one of more than 64 bits, a flag that is none.
    assert_eq!(decode(b"\x01\x04\x80\x00"), Err(DecodeError::Malformed("revision")));
    let wide = [b"\x01\x04".as_slice(), &[0xff; 9], &[0x02]].concat();
    assert_eq!(decode(&wide), Err(DecodeError::Malformed("revision")));
    let endless = [b"\x01\x04".as_slice(), &[0x80; 20]].concat();
    assert_eq!(decode(&endless), Err(DecodeError::Malformed("revision")));
    assert_eq!(decode(b"\x01\x02\x02\x01a\x00"), Err(DecodeError::Malformed("flags")));
}

#[test]
fn extreme_numbers_survive() {
    for revision in [i64::MIN, -1, 0, 1, i64::MAX] {
        let command = Command::Compact(CompactionRequest { revision });
        assert_eq!(Command::decode(&command.encode()), Ok(command));
    }
}

#[test]
fn nesting_is_decoded_to_its_limit_and_no_deeper() {
    let mut request = TxnRequest::default();
    for _ in 1..TXN_DEPTH_MAX {
        request = TxnRequest { success: vec![RequestOp::Txn(request)], ..TxnRequest::default() };
    }
    let command = Command::Txn(request);
    assert_eq!(Command::decode(&command.encode()), Ok(command));
    // Level after level: no comparison, one operation, a transaction.
    let bomb = [b"\x01\x03".as_slice(), &[0, 1, 3].repeat(100_000)].concat();
    assert_eq!(decode(&bomb), Err(DecodeError::TooDeep));
}

#[test]
fn a_length_that_is_not_there_takes_no_memory() {
    let many = b"\x01\x03\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01";
    assert_eq!(decode(many), Err(DecodeError::Truncated("comparison")));
}

#[test]
fn a_command_costs_what_etcd_counts() {
    assert_eq!(Command::Put(put("key", "value")).cost_bytes(), 256 + 3 + 5);
    assert_eq!(Command::DeleteRange(delete("key", "")).cost_bytes(), 0);
    let two = || vec![RequestOp::Put(put("a", "1")), RequestOp::Put(put("b", "22"))];
    let one = || vec![RequestOp::Put(put("c", "1"))];
    let inner = TxnRequest { success: two(), failure: one(), ..TxnRequest::default() };
    let txn = TxnRequest {
        success: one(),
        failure: vec![RequestOp::Txn(inner)],
        ..TxnRequest::default()
    };
    assert_eq!(Command::Txn(txn).cost_bytes(), 2 * 256 + 5, "the dearer branch");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_command_is_the_same_after_the_log(command in super::strategy::command()) {
        let encoded = command.encode();
        prop_assert_eq!(Command::decode(&encoded), Ok(command));
    }

    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let bytes = Bytes::from(bytes);
        let _ = SnapshotImport::new().chunk(&bytes);
        if let Ok(command) = Command::decode(&bytes) {
            // There is one form only.
            prop_assert_eq!(command.encode(), bytes);
        }
    }

    #[test]
    fn no_damaged_command_panics_or_has_two_forms(
        command in super::strategy::command(),
        place: prop::sample::Index,
        byte: u8,
    ) {
        let mut bytes = command.encode().to_vec();
        *place.get_mut(&mut bytes) = byte;
        let bytes = Bytes::from(bytes);
        if let Ok(command) = Command::decode(&bytes) {
            prop_assert_eq!(command.encode(), bytes);
            // Nor can anything that decodes harm a machine.
            let mut node = Node::with(&["a", "b"]);
            let _ = node.apply(command);
        }
    }
}
