//! Connection ids of QUIC, written and read. Each pass of their cipher changes one half by the other, so the passes in
//! the other order encrypt.

use lb_common::{
    quic::{self, Config, ConfigKey, Halves},
    service::ServiceId,
};

const SERVICE: ServiceId = ServiceId(7);
/// Bytes that a half is read with.
const HALF: usize = 16;

pub(crate) fn check(bytes: &[u8]) {
    let Some((start, rest)) = bytes.split_first_chunk() else {
        return;
    };
    let (at, length) = quic::id_at(*start);
    assert!(at < HALF && length <= usize::from(u8::MAX));
    let Some(([id, server_len, nonce_len, first], rest)) = rest.split_first_chunk() else {
        return;
    };
    if let Some(key) = ConfigKey::of(SERVICE, *first) {
        assert_eq!(key.service(), SERVICE);
    }
    let Some((key, rest)) = rest.split_first_chunk::<16>() else {
        return;
    };
    let (server_len, nonce_len) = (usize::from(server_len & 0x1f), usize::from(nonce_len & 0x1f));
    let key = (first & 1 != 0).then_some(*key);
    let Ok(config) = Config::new(*id, server_len, nonce_len, key) else {
        return;
    };
    let block = server_len + nonce_len;
    assert_eq!(config.id_length(), 1 + block);
    let Some(plain) = rest.get(..block) else { return };
    let mut room = [0; 64];
    room[..block].copy_from_slice(plain);
    let half = |at: usize| {
        let mut half = [0; HALF];
        half.copy_from_slice(&room[at..at + HALF]);
        quic::words(half)
    };
    let halves = Halves([half(0), half(config.right_at())]);
    let server = config.key_of(SERVICE, &plain[..server_len]);
    assert_eq!(server, Some(config.server(SERVICE, &halves)));
    // A single pass is encrypted differently, which is not implemented here.
    if config.steps().len() > 1 {
        let mut there = Halves(halves.0);
        for number in config.steps().iter().rev() {
            config.step(&mut there, *number);
        }
        for number in config.steps() {
            config.step(&mut there, *number);
        }
        assert_eq!(server, Some(config.server(SERVICE, &there)));
    }
}
