//! A fan-out: an ET_NET thread posts work to ET_TASK, each piece with a deadline, and gathers the results.
//!
//! ```text
//! cargo run -p beltway-event --example fanout
//! ```

use std::io;
use std::sync::mpsc;
use std::time::Duration;

use event::{BackgroundError, Processor, ProcessorOptions, Thread, background, local};

/// How long one piece may take.
const LIMIT: Duration = Duration::from_millis(300);

/// Long work; the one for 7 blocks too long.
fn sum_to(n: u64) -> u64 {
    if n == 7 {
        std::thread::sleep(LIMIT * 5);
    }
    (1..=n * 1_000_000).fold(0, u64::wrapping_add)
}

/// Posts ten pieces and answers when each has a result, or none in time. The thread serves others meanwhile.
async fn fan_out(thread: Thread) -> Vec<(u64, Result<u64, BackgroundError>)> {
    let Some(tasks) = background() else { return Vec::new() };
    let (sender, results) = local::channel(10);
    for n in 1..=10 {
        let work = tasks.run_within(&thread, LIMIT, move || sum_to(n));
        let sender = sender.clone();
        thread.spawn("waits for a piece", async move {
            // The channel holds them all, and its reader waits for all: neither full nor closed.
            let _ = sender.send((n, work.await)).await;
        });
    }
    drop(sender);
    let mut all = Vec::new();
    while let Some(result) = results.recv().await {
        all.push(result);
    }
    all
}

fn main() -> io::Result<()> {
    let options = ProcessorOptions { net: 1, task: 2, pin: false, seed: 1 };
    let processor = Processor::start(&options, |_| Ok(()))?;
    let (done, finished) = mpsc::channel();
    let start = move |thread: &Thread| {
        let me = thread.clone();
        thread.spawn("fan-out", async move {
            // The main thread waits for this.
            let _ = done.send(fan_out(me).await);
        });
    };
    processor.net()[0].run(start).map_err(io::Error::other)?;
    let results = finished.recv_timeout(Duration::from_secs(10)).map_err(io::Error::other)?;
    for (n, result) in &results {
        match result {
            Ok(sum) => println!("{n}: {sum}"),
            Err(error) => println!("{n}: {error}"),
        }
    }
    println!("{} pieces", results.len());
    if processor.stop(Duration::from_secs(5)) { Ok(()) } else { Err(io::Error::other("a thread did not end")) }
}
