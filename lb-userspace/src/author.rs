//! Authors of changes: the user, group and command behind a connection to the admin socket.

use std::{fmt, fs, net::IpAddr};

use serde::{Deserialize, Serialize};
use tokio::net::UnixStream;
use utoipa::ToSchema;

/// Where users are named. Read without the C library's resolver: it may wait for a directory server, and a static
/// program has none.
const USERS: &str = "/etc/passwd";
/// Where groups are named.
const GROUPS: &str = "/etc/group";

/// Who made a change.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Author {
    /// Name of the user, or the number if `/etc/passwd` has none.
    pub user: String,
    /// Name of the user's primary group, or its number.
    pub group: String,
    /// Name of the command as the kernel has it, up to 15 bytes; empty if it had ended.
    pub command: String,
    /// Its process id; 0 if the change came over the network.
    pub pid: i32,
    /// The address that it came from over the network; the user is then a name of its certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub address: Option<IpAddr>,
}

/// As in events and log: `root, lb`, or `alice, 192.0.2.7`.
impl fmt::Display for Author {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.user)?;
        if let Some(address) = self.address {
            return write!(f, ", {address}");
        }
        if self.command.is_empty() {
            return Ok(());
        }
        write!(f, ", {}", self.command)
    }
}

/// Who is at the other end of a connection.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Peer {
    /// A process of this machine, as the kernel recorded it when it connected.
    Process(Process),
    /// A client with a certificate.
    Client {
        /// The names of its certificate.
        names: Vec<String>,
        /// Its address.
        address: IpAddr,
    },
}

/// A process of this machine.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Process {
    user: u32,
    group: u32,
    pid: i32,
    command: String,
}

impl Peer {
    /// The peer of a connection (`SO_PEERCRED`, unix(7)); `None` if the kernel does not know it.
    pub fn of(stream: &UnixStream) -> Option<Self> {
        let known = stream.peer_cred().ok()?;
        let pid = known.pid().unwrap_or_default();
        let command = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        Some(Self::Process(Process {
            user: known.uid(),
            group: known.gid(),
            pid,
            command: printable(command.trim_end_matches('\n')),
        }))
    }

    /// The same with names.
    pub fn author(&self) -> Author {
        let name = |file, id: u32| {
            let names = fs::read_to_string(file).unwrap_or_default();
            name_of(&names, id).map_or_else(|| id.to_string(), printable)
        };
        match self {
            Self::Process(process) => Author {
                user: name(USERS, process.user),
                group: name(GROUPS, process.group),
                command: process.command.clone(),
                pid: process.pid,
                address: None,
            },
            Self::Client { names, address } => Author {
                user: names.first().cloned().unwrap_or_else(|| "no name".to_owned()),
                group: String::new(),
                command: String::new(),
                pid: 0,
                address: Some(*address),
            },
        }
    }
}

/// The id of a group: by name, or a number.
pub fn group_id(group: &str) -> Option<u32> {
    let names = fs::read_to_string(GROUPS).unwrap_or_default();
    id_of(&names, group).or_else(|| group.parse().ok())
}

/// A process sets the name of its command itself, so it may hold anything.
fn printable(text: &str) -> String {
    text.replace(|char: char| char.is_control(), "?")
}

/// Name and id of a line of passwd(5) or group(5).
fn entry(line: &str) -> Option<(&str, u32)> {
    let mut fields = line.split(':');
    let name = fields.next()?;
    Some((name, fields.nth(1)?.parse().ok()?))
}

fn name_of(names: &str, id: u32) -> Option<&str> {
    let found = names.lines().filter_map(entry).find(|(_, known)| *known == id);
    found.map(|(name, _)| name)
}

fn id_of(names: &str, name: &str) -> Option<u32> {
    let found = names.lines().filter_map(entry).find(|(known, _)| *known == name);
    found.map(|(_, id)| id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_and_groups_have_names_or_numbers() {
        let names = "root:x:0:0::/root:/bin/sh\n#\n\nbroken:x\nalice:x:1000:1000::/:/bin/sh\nlb:x:990:\n";
        assert_eq!(name_of(names, 1000), Some("alice"));
        assert_eq!(name_of(names, 1001), None);
        assert_eq!(id_of(names, "lb"), Some(990));
        assert_eq!(id_of(names, "broken"), None);
    }

    #[test]
    fn a_command_cannot_forge_lines() {
        assert_eq!(printable("a\nb\u{1b}[2J"), "a?b?[2J");
    }

    #[tokio::test]
    async fn the_peer_of_a_connection_is_this_process() {
        let (one, _other) = UnixStream::pair().unwrap();
        let author = Peer::of(&one).unwrap().author();
        assert_eq!(author.pid, i32::try_from(std::process::id()).unwrap());
        assert!(!author.command.is_empty() && !author.user.is_empty());
    }
}
