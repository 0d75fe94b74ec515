use super::*;

const FOUR: [Server<'static>; 4] = [
    Server { name: "alpha", weight: 1 },
    Server { name: "beta", weight: 2 },
    Server { name: "gamma", weight: 1 },
    Server { name: "delta", weight: 3 },
];

fn rules(distribution: Distribution) -> Rules {
    Rules { hash: Hash::Murmur, distribution, tag: None }
}

fn keys() -> impl Iterator<Item = Vec<u8>> {
    (0..10_000).map(|n| format!("key:{n}").into_bytes())
}

#[test]
fn names_are_read_back_as_they_are_written() {
    for way in Distribution::ALL {
        assert_eq!(way.to_string().parse(), Ok(way));
    }
    assert_eq!("Ketama".parse::<Distribution>().unwrap_err().to_string(), "no distribution is called \"Ketama\"");
}

#[test]
fn a_server_without_a_name_is_called_by_its_address() {
    assert_eq!(default_name("10.0.0.1", 6379), "10.0.0.1:6379");
    assert_eq!(default_name("10.0.0.1", 11211), "10.0.0.1");
}

#[test]
fn the_order_in_the_file_does_not_matter() {
    let mut back = FOUR;
    back.reverse();
    let mut chance = Rng::new(1);
    for way in [Distribution::Ketama, Distribution::Modula, Distribution::Rendezvous] {
        let (one, other) =
            (Continuum::build(&FOUR, rules(way), |_| true), Continuum::build(&back, rules(way), |_| true));
        let (one, other) = (one.unwrap(), other.unwrap());
        for key in keys().take(500) {
            assert_eq!(one.pick(&key, &mut chance), other.pick(&key, &mut chance).map(|index| 3 - index));
        }
    }
}

#[test]
fn an_ejected_server_gets_nothing_and_under_ketama_few_other_keys_move() {
    let mut chance = Rng::new(1);
    let all = Continuum::build(&FOUR, rules(Distribution::Ketama), |_| true).unwrap();
    let without = Continuum::build(&FOUR, rules(Distribution::Ketama), |index| index != 1).unwrap();
    let mut moved = 0;
    for key in keys() {
        let (before, after) = (all.pick(&key, &mut chance), without.pick(&key, &mut chance));
        assert_ne!(after, Some(1));
        moved += usize::from(before != Some(1) && before != after);
    }
    // The others' numbers of points change with the total weight, so a few move although their server stayed.
    assert!(moved < 1_000, "{moved} of 10,000 keys moved without need");
}

#[test]
fn under_rendezvous_and_slots_only_the_keys_of_a_lost_server_move() {
    let mut chance = Rng::new(1);
    for way in [Distribution::Rendezvous, Distribution::Slots] {
        let all = Continuum::build(&FOUR, rules(way), |_| true).unwrap();
        for lost in 0..4 {
            let without = Continuum::build(&FOUR, rules(way), |index| index != lost).unwrap();
            let mut heirs = [0_u32; 4];
            for key in keys() {
                let before = all.pick(&key, &mut chance).unwrap();
                let after = without.pick(&key, &mut chance).unwrap();
                if before == lost { heirs[after] += 1 } else { assert_eq!(before, after, "{way}") }
            }
            assert!(heirs[lost] == 0 && heirs.iter().filter(|count| **count > 0).count() == 3, "{way}: {heirs:?}");
        }
    }
}

#[test]
fn slots_are_those_of_a_cluster_whatever_the_pools_hash() {
    let mut chance = Rng::new(1);
    for hash in Hash::ALL {
        let rules = Rules { hash, distribution: Distribution::Slots, tag: None };
        let ring = Continuum::build(&FOUR, rules, |_| true).unwrap();
        for key in ["", "123456789", "foo{hash_tag}", "{user1000}.following", "foo{}{bar}", "foo{{bar}}zap"] {
            let Way::Slots { slot, range, lent } = ring.explain(key.as_bytes(), &mut chance).way else { panic!() };
            assert_eq!(slot, crate::cluster_slot(key.as_bytes()));
            assert!(range.contains(&slot) && !lent);
        }
    }
    let dollars = Rules { tag: Some(HashTag::new(b'$', b'$')), ..rules(Distribution::Slots) };
    let ring = Continuum::build(&FOUR, dollars, |_| true).unwrap();
    let Way::Slots { slot, .. } = ring.explain(b"a$foo$b", &mut chance).way else { panic!() };
    assert_eq!(slot, 12_182, "the slot of foo");
}

#[test]
fn keys_come_in_the_announced_shares() {
    let mut chance = Rng::new(1);
    for way in Distribution::ALL {
        let ring = Continuum::build(&FOUR, rules(way), |index| index != 2).unwrap();
        let mut counts = [0_u32; 4];
        keys().for_each(|key| counts[ring.pick(&key, &mut chance).unwrap()] += 1);
        assert!(((0..4).map(|index| ring.share(index)).sum::<f64>() - 1.0).abs() < 1e-9);
        for (index, count) in counts.into_iter().enumerate() {
            let difference = f64::from(count) / 10_000.0 - ring.share(index);
            assert!(difference.abs() < 0.02, "{way}: {counts:?}, share of {index} is {}", ring.share(index));
        }
    }
}

#[test]
fn with_nobody_live_nobody_is_picked() {
    let mut chance = Rng::new(1);
    for way in Distribution::ALL {
        for ring in [Continuum::build(&FOUR, rules(way), |_| false), Continuum::build(&[], rules(way), |_| true)] {
            let ring = ring.unwrap();
            assert_eq!(ring.pick(b"key", &mut chance), None);
            assert_eq!(ring.explain(b"key", &mut chance).way, Way::NobodyLive);
            assert!(ring.share(0).abs() < f64::EPSILON);
        }
    }
}

#[test]
fn both_sides_of_the_limits_are_told_apart() {
    let many = vec![Server { name: "a", weight: 1 }; SERVERS_MAX + 1];
    let count = |n: usize| Continuum::build(&many[..n], rules(Distribution::Modula), |_| true).map(|_| ());
    assert_eq!(count(SERVERS_MAX), Ok(()));
    assert_eq!(count(SERVERS_MAX + 1), Err(ContinuumError::TooManyServers(SERVERS_MAX + 1)));
    let weightless = [Server { name: "a", weight: 1 }, Server { name: "b", weight: 0 }];
    let error = Continuum::build(&weightless, Rules::default(), |_| true).unwrap_err();
    assert_eq!(error.to_string(), "server 1 has weight 0, the least is 1");
}

#[test]
fn huge_weights_cost_no_memory_and_count_rightly() {
    let heavy = [Server { name: "a", weight: u32::MAX }, Server { name: "b", weight: u32::MAX }];
    let mut chance = Rng::new(1);
    for way in [Distribution::Ketama, Distribution::Modula, Distribution::Rendezvous, Distribution::Slots] {
        let ring = Continuum::build(&heavy, rules(way), |_| true).unwrap();
        assert!((ring.share(0) - 0.5).abs() < 0.1);
        assert!(ring.pick(b"key", &mut chance).is_some());
    }
}

#[test]
fn every_hash_finds_the_next_point_around_the_ring() {
    let order: Vec<(u16, Server<'_>)> = (0..4).zip(FOUR).collect();
    let ring = Ketama::build(&order);
    let values: Vec<u32> = (0..ring.len()).map(|at| ring.value(at)).collect();
    assert!(values.is_sorted());
    let slow = |hash: u32| values.iter().position(|value| *value >= hash).unwrap_or(0);
    let edges = values.iter().flat_map(|value| [value.wrapping_sub(1), *value, value.wrapping_add(1)]);
    let mut chance = Rng::new(3);
    let anywhere = (0..10_000).map(|_| u32::try_from(chance.below(1 << 32)).unwrap());
    for hash in edges.chain(anywhere).chain([0, 1, u32::MAX]) {
        assert_eq!(ring.position(hash), slow(hash), "{hash:#x}");
    }
}

#[test]
fn placements_are_explained_in_a_sentence() {
    let mut chance = Rng::new(1);
    let mut said = |servers: &[Server<'_>], rules: Rules, key: &[u8]| {
        let placement = Continuum::build(servers, rules, |_| true).unwrap().explain(key, &mut chance);
        placement.to_string()
    };
    let tagged = Rules { hash: Hash::Crc32a, distribution: Distribution::Modula, tag: Some(HashTag::BRACES) };
    assert_eq!(said(&FOUR, tagged, b"{123456789}:name"), "bytes 1..10 hash to 0xcbf43926, by 7 leaves 5");
    let ketama = said(&FOUR, Rules::default(), b"key");
    assert!(ketama.starts_with("bytes 0..3 hash to 0x") && ketama.ends_with("of 628"), "{ketama}");
    assert!(said(&FOUR, rules(Distribution::Random), b"key").contains("one of 4 live"));
    assert_eq!(said(&FOUR, rules(Distribution::Rendezvous), b"key"), "the highest of 4 bids for bytes 0..3");
    let slots = said(&FOUR, rules(Distribution::Slots), b"a{foo}b");
    assert_eq!(slots, "bytes 2..5 hash to 0x0000af96, slot 12182 of 9362 to 16383, its own");
    assert!(said(&FOUR[..1], Rules::default(), b"key").contains("only server"));
    assert_eq!(said(&[], Rules::default(), b"key"), "no server is live");
}

#[test]
fn explaining_and_picking_agree() {
    for way in Distribution::ALL.into_iter().filter(|way| *way != Distribution::Random) {
        let ring = Continuum::build(&FOUR, rules(way), |index| index != 3).unwrap();
        let mut chance = Rng::new(1);
        for key in keys().take(500) {
            assert_eq!(ring.explain(&key, &mut chance).server, ring.pick(&key, &mut chance));
        }
    }
}
