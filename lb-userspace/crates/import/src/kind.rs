//! Kinds of sources, and how they are recognised.

use crate::ipvs;

/// Whose configuration a source is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// HAProxy's (`haproxy.cfg`).
    Haproxy,
    /// keepalived's (`keepalived.conf`).
    Keepalived,
    /// Rules of IPVS, as `ipvsadm -Sn` writes them.
    Ipvs,
}

impl Kind {
    /// By its word.
    pub fn from_word(word: &str) -> Option<Self> {
        match word {
            "haproxy" => Some(Self::Haproxy),
            "keepalived" => Some(Self::Keepalived),
            "ipvs" | "ipvsadm" => Some(Self::Ipvs),
            _ => None,
        }
    }

    /// By the first line that only one of them has.
    pub fn of(text: &str) -> Option<Self> {
        text.lines().find_map(|line| {
            let line = line.trim();
            let first = line
                .split(|c: char| c.is_whitespace() || c == '{')
                .next()
                .unwrap_or_default();
            if ipvs::is_rule(line) || line.starts_with("IP Virtual Server version") {
                return Some(Self::Ipvs);
            }
            match first {
                "virtual_server"
                | "virtual_server_group"
                | "global_defs"
                | "vrrp_instance"
                | "vrrp_script"
                | "vrrp_sync_group" => Some(Self::Keepalived),
                "global" | "defaults" | "frontend" | "backend" | "listen" => Some(Self::Haproxy),
                _ => None,
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_told_apart_by_their_content() {
        for (text, kind) in [
            ("# haproxy\n\nglobal\n    daemon\n", Some(Kind::Haproxy)),
            ("listen web\n bind 192.0.2.1:80", Some(Kind::Haproxy)),
            ("! keepalived\nglobal_defs {\n}\n", Some(Kind::Keepalived)),
            ("virtual_server 192.0.2.10 80 {\n}", Some(Kind::Keepalived)),
            ("-A -t 192.0.2.10:80 -s rr\n", Some(Kind::Ipvs)),
            ("#!/bin/sh\nipvsadm -At 192.0.2.10:80 -s rr\n", Some(Kind::Ipvs)),
            ("[lb]\ninterfaces = []\n", None),
            ("", None),
        ] {
            assert_eq!(Kind::of(text), kind, "{text}");
        }
    }
}
