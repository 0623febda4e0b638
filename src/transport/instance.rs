//! Which life of a member speaks: what every call says of its sender, and is answered by.
//!
//! A data directory has an instance number of its own. A member that comes back under its old id
//! with an empty directory has another one, and is refused: it has forgotten the votes and the
//! confirmations that it gave, and could give them again to others. The number travels in the
//! metadata of calls and of their answers, not in frames: once for each stream is enough.

use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Code, Request, Response, Status};

/// Why the cluster will not speak with this member again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerRejection {
    /// It was removed.
    Removed,
    /// Its id belongs to another data directory.
    OtherInstance,
}

const INSTANCE: &str = "raft-instance";
const DISOWNED: &str = "raft-rejected";

/// Says who calls.
pub fn signed<T>(message: T, own: u64) -> Request<T> {
    let mut request = Request::new(message);
    sign(request.metadata_mut(), own);
    request
}

/// Says who answers.
pub fn answered<T>(message: T, own: u64) -> Response<T> {
    let mut response = Response::new(message);
    sign(response.metadata_mut(), own);
    response
}

/// Zero stands for "not told".
fn sign(metadata: &mut MetadataMap, own: u64) {
    if own != 0 {
        let text = format!("{own:016x}");
        metadata.insert(INSTANCE, MetadataValue::try_from(text).expect("digits are ASCII"));
    }
}

/// What the other side says it is, if it says so.
pub fn told(metadata: &MetadataMap) -> Option<u64> {
    let text = metadata.get(INSTANCE)?.to_str().ok()?;
    u64::from_str_radix(text, 16).ok().filter(|instance| *instance != 0)
}

/// A refusal for good.
pub fn rejections(why: PeerRejection, text: String) -> Status {
    let word = match why {
        PeerRejection::Removed => "removed",
        PeerRejection::OtherInstance => "other-instance",
    };
    let mut metadata = MetadataMap::new();
    metadata.insert(DISOWNED, MetadataValue::from_static(word));
    Status::with_metadata(Code::PermissionDenied, text, metadata)
}

/// Whether `status` is a refusal for good.
pub fn rejected(status: &Status) -> Option<PeerRejection> {
    match status.metadata().get(DISOWNED)?.to_str().ok()? {
        "removed" => Some(PeerRejection::Removed),
        "other-instance" => Some(PeerRejection::OtherInstance),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_is_read_as_it_was_told() {
        for own in [1, u64::MAX] {
            assert_eq!(told(signed((), own).metadata()), Some(own));
            assert_eq!(told(answered((), own).metadata()), Some(own));
        }
        assert_eq!(told(signed((), 0).metadata()), None, "it does not say");
        let mut nonsense = MetadataMap::new();
        nonsense.insert(INSTANCE, MetadataValue::from_static("me"));
        assert_eq!(told(&nonsense), None);
    }

    #[test]
    fn a_refusal_for_good_is_told_from_others() {
        for why in [PeerRejection::Removed, PeerRejection::OtherInstance] {
            assert_eq!(rejected(&rejections(why, "why".to_owned())), Some(why));
        }
        assert_eq!(rejected(&Status::permission_denied("not now")), None);
    }
}
