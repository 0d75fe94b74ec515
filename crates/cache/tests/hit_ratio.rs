//! What is kept is worth keeping: the store beside other policies, with the same bytes.

#[path = "../examples/hit_ratio/policies.rs"]
mod policies;
#[path = "../examples/hit_ratio/traces.rs"]
mod traces;

#[test]
fn scans_cost_less_hits_than_with_lru() {
    for trace in traces::all(100_000) {
        let budget = trace.distinct_bytes() / 10;
        let row = policies::run_all(&trace, budget);
        println!("{}: ours {}, LRU {}, FIFO {}, optimum {}", trace.name, row.ours, row.lru, row.fifo, row.optimum);
        assert!(row.ours.objects <= row.optimum.objects, "{}", trace.name);
        if trace.name.starts_with("Zipf") {
            assert!(row.ours.objects >= row.lru.objects && row.ours.objects >= row.fifo.objects, "{}", trace.name);
        }
    }
}
