//! Holds `docs/wal.md` and `docs/snapshot.md` to the code: the dumps in them are what is written,
//! byte for byte, and their tables add up to the dumps.

use super::model::*;
use crate::raft::types::{Configuration, Entry, Payload, SnapshotMeta};
use crate::storage::testing::SimDisk;
use crate::storage::{DataDir, Options, frame};

const WAL: &str = include_str!("../../../docs/wal.md");
const SNAPSHOT: &str = include_str!("../../../docs/snapshot.md");

/// The little log that the papers show.
fn example() -> (SimDisk, DataDir<SimDisk>) {
    let disk = SimDisk::new(0);
    let options = Options { urgent_segment_bytes: 2048, ..Options::default() };
    let (mut dir, _) = recover(&disk, options).unwrap();
    let entries = [
        Entry { id: id(1, 2), payload: Payload::Noop },
        command(2, 2, "hello"),
        Entry { id: id(3, 2), payload: Payload::Config(Configuration::of_voters([node(1)])) },
    ];
    dir.wal.append(hard_state(2, 3, 0), None, &entries).unwrap();
    dir.wal.sync().unwrap();
    dir.wal.append(hard_state(2, 3, 3), None, &[]).unwrap();
    dir.wal.vouch().unwrap();
    dir.wal.sync().unwrap();
    (disk, dir)
}

fn example_meta() -> SnapshotMeta {
    SnapshotMeta { last: id(2, 2), config: members() }
}

#[test]
fn the_segment_in_the_paper_is_what_is_written() {
    let (disk, _dir) = example();
    compare(WAL, "wal-0000000001", &disk);
}

#[test]
fn the_release_and_the_received_snapshot_in_the_paper_are_what_is_written() {
    let (disk, mut dir) = example();
    let end = used(&disk.content("wal-0000000001").unwrap());
    let info = write_snapshot(&dir.snapshots, &example_meta()).unwrap();
    dir.wal.release(&example_meta()).unwrap();
    dir.snapshots.adopt(info).unwrap();
    let received = SnapshotMeta { last: id(9, 3), ..example_meta() };
    let info = write_snapshot(&dir.snapshots, &received).unwrap();
    dir.wal.append(hard_state(3, 0, 9), Some(&received), &[]).unwrap();
    dir.wal.sync().unwrap();
    dir.snapshots.adopt(info).unwrap();
    let content = disk.content("wal-0000000001").unwrap();
    let shown = dump(WAL, "wal-0000000001, later");
    assert_eq!(shown[0].0, end, "the dump goes on where the other one ended");
    assert_bytes(&shown, &content);
}

#[test]
fn the_masked_group_in_the_paper_is_what_is_written() {
    let disk = SimDisk::new(0);
    let options = Options { urgent_segment_bytes: 4096, ..Options::default() };
    let (mut dir, _) = recover(&disk, options).unwrap();
    dir.wal.append(hard_state(1, 0, 0), None, &[command(1, 1, vec![0; 1000])]).unwrap();
    let content = disk.content("wal-0000000001").unwrap();
    let shown = dump(WAL, "wal-0000000001, masked");
    for (offset, bytes, _) in &shown {
        assert_eq!(&content[*offset..*offset + bytes.len()], bytes, "at byte {offset:#x}");
    }
}

#[test]
fn the_identity_in_the_paper_is_what_is_written() {
    let (disk, _dir) = example();
    for name in ["identity", "restarts"] {
        let text = String::from_utf8(disk.content(name).unwrap()).unwrap();
        assert_eq!(block(WAL, &format!("```text {name}")), text);
    }
}

#[test]
fn the_snapshot_in_the_paper_is_what_is_written() {
    let (disk, dir) = example();
    let mut writer = dir.snapshots.create(&example_meta()).unwrap();
    writer.write(b"the state of ").unwrap();
    writer.write(b"the machine").unwrap();
    writer.finish().unwrap();
    compare(SNAPSHOT, "snapshot-00000000000000000002-0000000002", &disk);
}

/// The tables give every field's place and size; fields follow each other without a gap, and the
/// dumps show the same sizes under the same names.
#[test]
fn the_tables_of_the_papers_agree_with_their_dumps() {
    let header = table(WAL, "The header of a group");
    assert_eq!(header.iter().map(|field| field.1).sum::<usize>(), frame::HEADER_BYTES);
    let fixed = table(SNAPSHOT, "The header");
    let dumps = [
        (header, dump(WAL, "wal-0000000001")),
        (fixed, dump(SNAPSHOT, "snapshot-00000000000000000002-0000000002")),
    ];
    for (fields, shown) in dumps {
        let mut at = 0;
        for (field, line) in fields.iter().zip(&shown) {
            assert_eq!(field.0, at, "{} follows the field before", field.2);
            assert_eq!((line.0, line.1.len()), (field.0, field.1), "{}", field.2);
            assert!(line.2.starts_with(&field.2), "{} is called {}", field.2, line.2);
            at += field.1;
        }
    }
}

fn compare(paper: &str, name: &str, disk: &SimDisk) {
    let content = disk.content(name).unwrap();
    let shown = dump(paper, name);
    assert_eq!(shown[0].0, 0);
    assert_bytes(&shown, &content);
}

/// The dump shows all that was written from its first offset on.
fn assert_bytes(shown: &[(usize, Vec<u8>, String)], content: &[u8]) {
    let from = shown[0].0;
    let bytes: Vec<u8> = shown.iter().flat_map(|line| line.1.clone()).collect();
    let end = if content.len() > 2000 { used(content) } else { content.len() };
    let written = &content[from..end];
    let first = bytes.iter().zip(written).position(|(shown, written)| shown != written);
    assert!(
        first.is_none() && bytes.len() == written.len(),
        "from byte {:#x} on the code writes\n{}",
        from + first.unwrap_or(bytes.len().min(written.len())),
        hex(from, written)
    );
    let mut at = from;
    for (offset, bytes, what) in shown {
        assert_eq!(*offset, at, "{what}");
        at += bytes.len();
    }
}

fn used(content: &[u8]) -> usize {
    let last = content.iter().rposition(|byte| *byte != 0).map_or(0, |at| at + 1);
    last.next_multiple_of(frame::ALIGN_BYTES)
}

fn hex(from: usize, bytes: &[u8]) -> String {
    let lines = bytes.chunks(16).enumerate().map(|(at, line)| {
        let line: Vec<_> = line.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{:04x}  {}\n", from + at * 16, line.join(" "))
    });
    lines.collect()
}

/// The code block that opens with the line `fence`.
fn block<'a>(paper: &'a str, fence: &str) -> &'a str {
    let (_, rest) = paper.split_once(&format!("{fence}\n")).expect("the paper has the block");
    rest.split_once("```").expect("a block is closed").0
}

/// Offset, bytes and name of each line of a dump.
fn dump(paper: &str, name: &str) -> Vec<(usize, Vec<u8>, String)> {
    let lines = block(paper, &format!("```hex {name}")).lines();
    let lines = lines.filter(|line| !line.trim().is_empty());
    lines
        .map(|line| {
            let (offset, rest) = line.split_once("  ").expect("an offset, two blanks");
            let (bytes, what) = rest.split_once("  ").unwrap_or((rest, ""));
            let bytes = bytes.split(' ').map(|byte| u8::from_str_radix(byte, 16).unwrap());
            (usize::from_str_radix(offset, 16).unwrap(), bytes.collect(), what.trim().to_owned())
        })
        .collect()
}

/// Offset, size and name of each row of the table under a heading.
fn table(paper: &str, heading: &str) -> Vec<(usize, usize, String)> {
    let (_, rest) = paper.split_once(&format!("# {heading}\n")).expect("the paper has the heading");
    let rows = rest.lines().skip_while(|line| !line.starts_with('|'));
    let rows = rows.take_while(|line| line.starts_with('|')).skip(2);
    rows.map_while(|row| {
        let cells: Vec<_> = row.split('|').map(str::trim).collect();
        Some((cells[1].parse().ok()?, cells[2].parse().ok()?, cells[3].to_owned()))
    })
    .collect()
}
