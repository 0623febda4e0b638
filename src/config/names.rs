//! Names that begin like ours and are not: which of them to refuse, and what was probably meant.
//!
//! Kubernetes puts the address of every Service of the namespace into the environment, and so do
//! docker's legacy links for every linked container. When such a thing is called `raft` or
//! `raft-something`, its variables begin with our prefix through no fault of the operator's. They
//! are told by their shape, and where the name alone could be a misspelling of ours
//! (`RAFT_PEER_PORT`), by their value as well.

use super::variables::VARIABLES;

const PROTOCOLS: [&str; 3] = ["TCP", "UDP", "SCTP"];

/// Whether `name` was put there by Kubernetes or docker to announce a service.
pub(super) fn injected_for_a_service(name: &str, value: &str) -> bool {
    // RAFT_SERVICE_HOST, RAFT_SERVICE_PORT, RAFT_X_SERVICE_PORT_CLIENT
    if name.ends_with("_SERVICE_HOST") {
        return true;
    }
    if name.ends_with("_SERVICE_PORT") || name.contains("_SERVICE_PORT_") {
        return is_number(value);
    }
    // RAFT_PORT=tcp://10.0.0.7:5001
    if name.ends_with("_PORT") && is_service_url(value) {
        return true;
    }
    // RAFT_PORT_5001_TCP, and behind it _ADDR, _PORT, _PROTO, _PORT_START, _PORT_END
    let Some((_, after)) = name.split_once("_PORT_") else {
        return false;
    };
    let mut words = after.split('_');
    words.next().is_some_and(is_number)
        && words.next().is_some_and(|word| PROTOCOLS.contains(&word))
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn is_service_url(value: &str) -> bool {
    value
        .split_once("://")
        .is_some_and(|(scheme, _)| PROTOCOLS.contains(&scheme.to_ascii_uppercase().as_str()))
}

/// What to say about `name`, which nobody knows.
pub(super) fn hint(name: &str) -> String {
    match nearest(name) {
        Some(known) => format!("a known variable; did you mean {known}?"),
        None => "a known variable; docs/configuration.md lists them".to_owned(),
    }
}

/// The known name of which the smallest part must be edited, unless that is most of it.
fn nearest(name: &str) -> Option<&'static str> {
    let edited_percent = |known: &str| {
        // The common prefix tells nothing.
        let telling = name.len().max(known.len()) - super::PREFIX.len();
        edit_distance(name, known) * 100 / telling.max(1)
    };
    let (percent, known) =
        VARIABLES.iter().map(|variable| (edited_percent(variable.name), variable.name)).min()?;
    (percent <= 50).then_some(known)
}

/// Levenshtein's distance: the least number of insertions, deletions and replacements.
fn edit_distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (line, left) in from.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = line + 1;
        for (column, right) in to.iter().enumerate() {
            let replaced = diagonal + usize::from(left != *right);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(row[column] + 1).min(diagonal + 1);
        }
    }
    row[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distance_counts_edits() {
        for (from, to, edits) in
            [("", "", 0), ("", "abc", 3), ("abc", "", 3), ("kitten", "sitting", 3), ("ab", "ba", 2)]
        {
            assert_eq!(edit_distance(from, to), edits, "{from} to {to}");
        }
    }

    #[test]
    fn a_misspelling_finds_its_name() {
        for (wrong, right) in [
            ("RAFT_NODEID", "RAFT_NODE_ID"),
            ("RAFT_PEER", "RAFT_PEERS"),
            ("RAFT_PEER_LISTEN_ADDR", "RAFT_PEER_LISTEN"),
            ("RAFT_HEARTBEAT_MS", "RAFT_HEARTBEAT_INTERVAL_MS"),
            ("RAFT_DATADIR", "RAFT_DATA_DIR"),
            ("RAFT_ELECTION_TIMEOUT_MAX", "RAFT_ELECTION_TIMEOUT_MAX_MS"),
        ] {
            let hint = hint(wrong);
            assert!(hint.ends_with(&format!("did you mean {right}?")), "{wrong}: {hint}");
        }
        assert!(!hint("RAFT_COLOUR_OF_THE_SKY").contains("did you mean"));
    }

    #[test]
    fn service_variables_are_nobodys_fault() {
        for (name, value) in [
            ("RAFT_SERVICE_HOST", "10.0.0.7"),
            ("RAFT_SERVICE_PORT", "2379"),
            ("RAFT_SERVICE_PORT_CLIENT", "2379"),
            ("RAFT_NODE_1_SERVICE_PORT_HTTP_ADMIN", "8080"),
            ("RAFT_PORT", "tcp://10.0.0.7:2379"),
            ("RAFT_PORT_2379_TCP", "tcp://10.0.0.7:2379"),
            ("RAFT_PORT_2379_TCP_ADDR", "10.0.0.7"),
            ("RAFT_NODE1_PORT_5001_UDP_PROTO", "udp"),
        ] {
            assert!(injected_for_a_service(name, value), "{name}={value}");
        }
        for (name, value) in [
            ("RAFT_PEER_PORT", "5001"),
            ("RAFT_PORT", "5001"),
            ("RAFT_PORT_NUMBER", "5001"),
            ("RAFT_SERVICE_PORT", "http"),
            ("RAFT_SERVICE", "x"),
        ] {
            assert!(!injected_for_a_service(name, value), "{name}={value}");
        }
    }
}
