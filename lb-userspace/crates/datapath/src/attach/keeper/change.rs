//! Reports of changes of interfaces.

use crate::{
    attach::keeper::judge::Judgement,
    interface::{Interface, InterfaceChange, InterfaceChangeKind},
    netlink::LinkOperation,
};

/// The changes of an interface to report after a look.
pub(super) fn changes(before: &Interface, after: &Interface, judgement: &Judgement) -> Vec<InterfaceChange> {
    use InterfaceChangeKind::{Attached, Changed, Detached};
    let mut reported = Vec::new();
    let mut report = |kind, message| reported.push(InterfaceChange { kind, message });
    let (old, name) = (&before.name, &after.name);
    let mode = |interface: &Interface| interface.attached.as_ref().map(|attached| attached.xdp_mode);

    if old != name && after.operation != LinkOperation::Missing {
        report(Changed, format!("interface {old} is now called {name}"));
    }
    let put_back = after.repairs != before.repairs;
    if let Judgement::TakeBack { program_id, .. } = judgement {
        let done = if put_back { "; it is back" } else { "" };
        report(
            Detached,
            format!("program {program_id} had replaced the balancer's on {name}{done}"),
        );
    } else if before.attached.is_some() && (after.attached.is_none() || put_back) {
        let why = match &after.absence {
            Some(absence) => format!("interface {old} {}", absence.message),
            None => format!("the program was no longer attached to {name}"),
        };
        report(Detached, why);
    } else if before.absence != after.absence
        && let Some(absence) = &after.absence
    {
        report(Changed, format!("interface {name} {}", absence.message));
    }
    if let Some(attached) = &after.attached
        && (before.attached.is_none() || put_back || mode(before) != mode(after))
    {
        let note = attached
            .note
            .as_ref()
            .map_or_else(String::new, |note| format!(": {note}"));
        report(
            Attached,
            format!("attached to {name}, XDP {}{note}", attached.xdp_mode.name()),
        );
    }
    if before.operation != after.operation && before.operation != LinkOperation::Missing {
        let what = match after.operation {
            LinkOperation::Up => Some("is up"),
            LinkOperation::NoCarrier => Some("has no carrier"),
            LinkOperation::Down => Some("is down"),
            LinkOperation::Missing => None,
        };
        if let Some(what) = what {
            report(Changed, format!("interface {name} {what}"));
        }
    }
    reported
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        interface::{Attachment, InterfaceProblem, XdpMode},
        netlink::{LinkState, Stacking},
    };

    fn attached() -> Interface {
        Interface {
            operation: LinkOperation::Up,
            attached: Some(Attachment {
                ifindex: 2,
                xdp_mode: XdpMode::Native,
                program_id: 70,
                program_tag: String::new(),
                link_id: 1,
                took_over: false,
                note: None,
            }),
            absence: None,
            ..Interface::missing("front")
        }
    }

    /// Program 99 was found on the interface, by our link.
    fn taken_back() -> Judgement {
        Judgement::TakeBack {
            link: LinkState {
                ifindex: 2,
                name: "front".to_owned(),
                framed: true,
                mac: None,
                mtu: 1500,
                vlan: None,
                stacking: Stacking::default(),
                xdp: None,
                alias: None,
                altnames: Vec::new(),
                operation: LinkOperation::Up,
            },
            program_id: 99,
        }
    }

    #[test]
    fn each_change_is_reported_once() {
        let same = attached();
        let gone = Interface {
            slot: same.slot,
            ..Interface::missing("front")
        };
        let made_anew = Interface {
            repairs: 1,
            ..attached()
        };
        let down = Interface {
            operation: LinkOperation::Down,
            ..attached()
        };
        let mut generic = attached();
        if let Some(attached) = &mut generic.attached {
            attached.xdp_mode = XdpMode::Generic;
            attached.note = Some("why".to_owned());
        }
        let renamed = Interface {
            name: "old".to_owned(),
            ..attached()
        };
        let refused = Interface {
            absence: Some(InterfaceProblem {
                message: "has no program: why".to_owned(),
                hint: None,
            }),
            operation: LinkOperation::Up,
            ..gone.clone()
        };
        let cases: [(&str, &Interface, &Interface, &[&str]); 10] = [
            ("nothing", &same, &same, &[]),
            (
                "gone",
                &same,
                &gone,
                &["Detached interface front is missing: nothing of it is forwarded"],
            ),
            (
                "gone under another name",
                &renamed,
                &gone,
                &["Detached interface old is missing: nothing of it is forwarded"],
            ),
            ("still gone", &gone, &gone, &[]),
            (
                "back",
                &gone,
                &made_anew,
                &["Attached attached to front, XDP native"],
            ),
            (
                "gone and back between two looks",
                &same,
                &made_anew,
                &[
                    "Detached the program was no longer attached to front",
                    "Attached attached to front, XDP native",
                ],
            ),
            ("down", &same, &down, &["Changed interface front is down"]),
            ("up", &down, &same, &["Changed interface front is up"]),
            (
                "another mode",
                &same,
                &generic,
                &["Attached attached to front, XDP generic: why"],
            ),
            (
                "renamed",
                &same,
                &renamed,
                &["Changed interface front is now called old"],
            ),
        ];
        let reported = |before, after, judgement: &Judgement| -> Vec<String> {
            let reported = changes(before, after, judgement).into_iter();
            reported
                .map(|reported| format!("{:?} {}", reported.kind, reported.message))
                .collect()
        };
        for (name, before, after, expected) in cases {
            assert_eq!(reported(before, after, &Judgement::Missing), expected, "{name}");
        }
        assert_eq!(
            reported(&gone, &refused, &Judgement::Missing),
            ["Changed interface front has no program: why"]
        );
        let taken = |after| reported(&same, after, &taken_back());
        let other = "Detached program 99 had replaced the balancer's on front";
        assert_eq!(
            taken(&made_anew),
            [
                &format!("{other}; it is back"),
                "Attached attached to front, XDP native"
            ]
        );
        assert_eq!(taken(&same), [other]);
    }
}
