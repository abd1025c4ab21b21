//! A flow as a line of JSON: a [`types::Flow`], which a test reads back. Written piece by piece, since a serializer takes several
//! times as long for a million lines.

use lb_common::backend::Generation;

use super::digits::{address, decimal};
use crate::{
    api::names::Names,
    datapath::{Flow, FlowState, WayBack},
    state::words::Word as _,
};

/// Writes flows as lines.
pub(super) struct LineWriter {
    names: Names,
    /// Names of interfaces as JSON, by index.
    interfaces: Vec<(u32, Vec<u8>)>,
    /// The beginnings of lines, up to the client's address, by the backend's number.
    begins: Vec<Option<(Generation, Box<[u8]>)>>,
}

impl LineWriter {
    /// `interfaces`: their indexes and names.
    pub(super) fn new(names: Names, interfaces: impl Iterator<Item = (u32, String)>) -> Self {
        Self {
            names,
            interfaces: interfaces.map(|(index, name)| (index, quoted(&name))).collect(),
            begins: Vec::new(),
        }
    }

    /// Appends the line of a flow.
    pub(super) fn write(&mut self, flow: &Flow, out: &mut Vec<u8>) {
        out.extend_from_slice(self.begin(flow));
        address(out, flow.client);
        out.extend_from_slice(b"\",\"address\":\"");
        address(out, flow.destination);
        out.extend_from_slice(b"\",\"to\":\"");
        address(out, flow.to);
        match flow.via {
            Some(via) => {
                out.extend_from_slice(b"\",\"via\":\"");
                address(out, via);
                out.extend_from_slice(b"\",\"state\":\"");
            }
            None => out.extend_from_slice(b"\",\"via\":null,\"state\":\""),
        }
        out.extend_from_slice(FlowState::word(flow.state).as_bytes());
        out.extend_from_slice(b"\",\"age\":");
        number(out, flow.age);
        out.extend_from_slice(b",\"idle\":");
        decimal(out, flow.idle);
        out.extend_from_slice(b",\"slot\":");
        number(out, flow.slot);
        out.extend_from_slice(b",\"interface\":");
        match flow.way_back {
            Some(WayBack { ifindex, vlans }) => {
                self.interface(ifindex, out);
                out.extend_from_slice(b",\"vlans\":[");
                let (outer, inner) = vlans.get();
                for (at, vlan) in [outer, inner].into_iter().flatten().enumerate() {
                    if at > 0 {
                        out.push(b',');
                    }
                    decimal(out, vlan.id.into());
                }
                out.extend_from_slice(b"]}\n");
            }
            None => out.extend_from_slice(b"null,\"vlans\":[]}\n"),
        }
    }

    fn begin(&mut self, flow: &Flow) -> &[u8] {
        let (id, generation) = flow.owner;
        let at = usize::from(id.0);
        if self.begins.len() <= at {
            self.begins.resize(at + 1, None);
        }
        let Some(known) = self.begins.get_mut(at) else {
            return &[];
        };
        if known.as_ref().is_none_or(|(of, _)| *of != generation) {
            let named = self.names.of(flow);
            let mut begin = Vec::new();
            for (key, name) in [
                ("{\"service\":", &*named.service),
                (",\"backend\":", &*named.backend),
                (",\"protocol\":", flow.protocol.word()),
            ] {
                begin.extend_from_slice(key.as_bytes());
                begin.extend(quoted(name));
            }
            begin.extend_from_slice(b",\"client\":\"");
            *known = Some((generation, begin.into()));
        }
        known.as_ref().map_or(&[], |(_, begin)| begin)
    }

    fn interface(&self, ifindex: u32, out: &mut Vec<u8>) {
        match self.interfaces.iter().find(|(index, _)| *index == ifindex) {
            Some((_, name)) => out.extend_from_slice(name),
            None => out.extend(quoted(&format!("interface {ifindex}"))),
        }
    }
}

/// A JSON string.
fn quoted(text: &str) -> Vec<u8> {
    serde_json::Value::from(text).to_string().into()
}

fn number(out: &mut Vec<u8>, number: Option<u32>) {
    match number {
        Some(number) => decimal(out, number),
        None => out.extend_from_slice(b"null"),
    }
}
