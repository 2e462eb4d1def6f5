//! Whole worlds in virtual time, from seeds.

use keepwatch::sim::world;

fn worlds() -> u64 {
    let wanted = std::env::var("KEEPWATCH_WORLDS").ok().and_then(|n| n.parse().ok());
    wanted.unwrap_or(2_000)
}

#[test]
fn safe_at_every_step_and_right_in_the_end() {
    if let Some(seed) = std::env::var("KEEPWATCH_SEED").ok().and_then(|s| s.parse().ok()) {
        tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).init();
        world::run(seed).unwrap();
        return;
    }
    let threads = std::thread::available_parallelism().map_or(2, usize::from) as u64;
    let wrong: Vec<String> = std::thread::scope(|scope| {
        let handles: Vec<_> = (0..threads)
            .map(|thread| {
                scope.spawn(move || {
                    let seeds = (thread..worlds()).step_by(threads as usize);
                    seeds.filter_map(|seed| world::run(seed).err()).take(5).collect::<Vec<_>>()
                })
            })
            .collect();
        handles.into_iter().flat_map(|handle| handle.join().unwrap()).collect()
    });
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn same_seed_same_run() {
    for seed in 0..20 {
        assert_eq!(world::run(seed), world::run(seed), "seed {seed}");
    }
}
