//! Tests of the limits of enrolment.

use super::*;

#[test]
fn attempts_are_limited_for_each_peer_and_for_all() {
    let attempts = Attempts::default();
    let minute = |minutes: u64| Duration::from_secs(60 * minutes);
    let from = |n: u32| Some(IpAddr::V4(Ipv4Addr::from_bits(n)));
    let taken = |peer, now| (0..1000).filter(|_| attempts.count(peer, now).is_ok()).count();

    assert_eq!(taken(from(1), minute(5)), 30);
    assert_eq!(taken(from(2), minute(5)), 30, "another peer");
    let rest: usize = (3..100).map(|n| taken(from(n), minute(5))).sum();
    assert_eq!(rest, 240, "300 of all peers");
    assert_eq!(taken(from(1), minute(6)), 30, "the next minute");
}
