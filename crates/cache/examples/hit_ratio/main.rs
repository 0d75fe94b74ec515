//! Prints how often the store in memory is hit, beside other policies with the same bytes, on synthetic traces.
//!
//! `cargo run --release -p beltway-cache --example hit_ratio [requests]`

mod policies;
mod traces;

fn main() {
    let requests = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(1_000_000);
    println!("hit ratio in % of {requests} requests (of bytes); the optimum is Belady's rule, offline");
    println!("{:24} {:>8}  {:>14} {:>14} {:>14} {:>14}", "trace", "cache", "S3-FIFO (ours)", "LRU", "FIFO", "optimum");
    for trace in traces::all(requests) {
        for share in [100, 10] {
            let budget = trace.distinct_bytes() / share;
            let row = policies::run_all(&trace, budget);
            print!("{:24} {:>7}%", trace.name, 100 / share);
            for ratio in [row.ours, row.lru, row.fifo, row.optimum] {
                print!("  {ratio}");
            }
            println!();
        }
    }
}
