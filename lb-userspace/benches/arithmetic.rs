//! Computations of both sides: the flow hash and the checksum of a packet, and the ring that the daemon builds.

use std::{hint::black_box, net::SocketAddr};

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use lb_common::{
    addr::{NetPort, NetV4, NetV6},
    csum::{self, Sum},
    flow::Tuple,
    hash,
};
use lb_userspace::ring::{Share, identity, maglev};

fn packets(c: &mut Criterion) {
    let (source, destination) = (NetPort::new(40_000), NetPort::new(80));
    let v4 = Tuple::new(NetV4(1), NetV4(2), source, destination, 6);
    let v6 = Tuple::new(NetV6([1, 2, 3, 4]), NetV6([5, 6, 7, 8]), source, destination, 6);
    c.bench_function("hash/v4", |b| b.iter(|| hash::tuple_v4(black_box(&v4))));
    c.bench_function("hash/v6", |b| b.iter(|| hash::tuple_v6(black_box(&v6))));
    c.bench_function("checksum/fold", |b| {
        b.iter(|| {
            let sum = Sum::ZERO.add32(black_box(1)).sub32(black_box(2));
            sum.add(black_box(3)).fold()
        });
    });
    c.bench_function("checksum/update", |b| {
        b.iter(|| csum::update(black_box(0x1234), black_box(0x4321)));
    });
}

fn rings(c: &mut Criterion) {
    let mut group = c.benchmark_group("ring");
    group.sample_size(20);
    for (backends, size) in [(10, 1_021), (100, 16_381), (1_000, 131_071)] {
        let shares: Vec<Share> = (0..backends)
            .map(|number: u16| Share {
                identity: identity(SocketAddr::from(([10, 0, 0, 1], 1_024 + number))),
                weight: 100,
            })
            .collect();
        let id = BenchmarkId::new(format!("{backends} backends"), size);
        group.bench_function(id, |b| b.iter(|| maglev(black_box(&shares), size)));
    }
    group.finish();
}

criterion_group!(benches, packets, rings);
criterion_main!(benches);
