//! Accepting when the process has no descriptors left, in a child process that has few.

use super::*;

/// Descriptors of the child, clients and server together.
const FEW: &str = "60";
const CHILD: &str = "tests::descriptors::the_child_that_has_few";

#[test]
fn without_descriptors_accepting_pauses_without_spinning_and_goes_on_when_there_are_some() {
    let program = std::env::current_exe().unwrap();
    let script = format!("ulimit -n {FEW} && exec \"$0\" --exact {CHILD} --ignored --nocapture --test-threads 1");
    let output = std::process::Command::new("sh").arg("-c").arg(script).arg(program).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{text}{errors}");
}

#[test]
#[ignore = "run by the test above, with few descriptors"]
fn the_child_that_has_few() {
    let (processor, shares, address) = echo_server(1, 10_000);
    let mut spare = Some(std::fs::File::open("/dev/null").unwrap());
    let mut clients = Vec::new();
    // Each connection takes two descriptors; in the end the client gets one and the server none.
    while let Ok(client) = TcpStream::connect(address) {
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        clients.push(client);
        assert!(clients.len() < 1_000, "the limit is not lowered");
    }
    let clock = base::SystemClock;
    let began = base::Clock::now(&clock);
    while shares.counts()[3] < 3 {
        // The server may have got the last descriptor and lack none: then the spare one goes to another client.
        if shares.counts()[0] == clients.len() as u64 && spare.take().is_some() {
            clients.push(TcpStream::connect(address).unwrap());
            clients.last().unwrap().set_read_timeout(Some(PATIENCE)).unwrap();
        }
        assert!(base::Clock::now(&clock) - began < PATIENCE, "it noticed nothing");
        std::thread::sleep(Duration::from_millis(5));
    }
    // It looks again every 20 ms, and does nothing in between.
    let of_loop = |handle: &Handle| {
        let (send, told) = mpsc::channel();
        handle.run(move |thread| send.send((thread.stats().turns(), sys::thread::cpu_time_ns())).unwrap()).unwrap();
        told.recv_timeout(PATIENCE).unwrap()
    };
    let began = base::Clock::now(&clock);
    let pauses = shares.counts()[3];
    let (turns, busy) = of_loop(&processor.net()[0]);
    std::thread::sleep(Duration::from_millis(300));
    let (turns_after, busy_after) = of_loop(&processor.net()[0]);
    let pauses = shares.counts()[3] - pauses;
    let waited = base::Clock::now(&clock) - began;
    let most = u64::try_from(waited.as_millis()).unwrap() / 20 + 2;
    assert!(pauses <= most && turns_after - turns <= 4 * most, "{pauses} pauses, {} turns", turns_after - turns);
    let busy = Duration::from_nanos(busy_after - busy);
    assert!(busy < waited / 4, "{busy:?} of {waited:?} at work");
    // The others go: the one that waited in the kernel's queue is served.
    let mut last = clients.pop().unwrap();
    clients.clear();
    last.write_all(b"x").unwrap();
    last.read_exact(&mut [0]).unwrap();
    let mut late = TcpStream::connect(address).unwrap();
    late.set_read_timeout(Some(PATIENCE)).unwrap();
    late.write_all(b"y").unwrap();
    late.read_exact(&mut [0]).unwrap();
    assert!(processor.stop(PATIENCE));
}
