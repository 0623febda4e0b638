//! The commands of scripts that change who takes part.

use goldenscript::ArgumentConsumer;

use super::super::super::{Change, Configuration, Role, TargetRole};
use super::super::member::{Durable, Member};
use super::super::{config, id, show};
use super::{Outcome, Script, list};

impl Script {
    /// `join 4 …`: starts members that know nothing. `members [1]`: who takes part, by each.
    /// `change 1 [add=4] [learner=5] [replace=6:2] [promote=5] [remove=1] [move=3]`: in one step.
    /// `reached 1 3=moved3:5001`: where its connections stand.
    pub(super) fn membership(&mut self, name: &str, args: &mut ArgumentConsumer<'_>) -> Outcome {
        match name {
            "join" => {
                while let Some(raw) = args.next_pos() {
                    let config = config(raw.parse()?, 7);
                    self.roles.insert(config.id, Role::Follower);
                    self.members.push(Member::new(config, Durable::new(Configuration::default())));
                }
            }
            "reached" => {
                let at = self.member(args)?;
                while let Some((peer, address)) = args.next_key() {
                    let (peer, address) = (id(peer.parse()?), address.to_owned());
                    self.act(at, |node| node.peer_reached(peer, Some(address)));
                }
            }
            "change" => {
                let at = self.member(args)?;
                let mut changes = Vec::new();
                while let Some((what, raw)) = args.next_key() {
                    changes.push(change(what, raw)?);
                }
                let request = self.next_request(at);
                self.act(at, |node| node.change_membership(request, changes));
            }
            _ => {
                let one = args.next_pos().map(str::parse).transpose()?.map(id);
                for at in 0..self.members.len() {
                    let member = &self.members[at];
                    if one.is_none_or(|one| one == member.config.id)
                        && let Some(node) = &member.node
                    {
                        let gone = if node.is_removed() { "; it was removed" } else { "" };
                        let text = show::configuration(node.membership());
                        self.say(at, &format!("{text}{gone}"));
                    }
                }
            }
        }
        Ok(())
    }
}

fn change(what: &str, raw: &str) -> Result<Change, Box<dyn std::error::Error>> {
    let (raw, other) = raw.split_once(':').unwrap_or((raw, ""));
    let member = id(raw.parse()?);
    let address = format!("host{raw}:5001");
    Ok(match what {
        "add" => Change::Add { id: member, address, aim: TargetRole::Voter { replaces: None } },
        "learner" => Change::Add { id: member, address, aim: TargetRole::Learner },
        "replace" => {
            let replaces = list(other)?.first().copied();
            Change::Add { id: member, address, aim: TargetRole::Voter { replaces } }
        }
        "promote" => Change::Promote(member),
        "remove" => Change::Remove(member),
        "move" => Change::UpdateAddress { id: member, address: format!("moved{raw}:5001") },
        other => return Err(format!("unknown change {other}").into()),
    })
}
