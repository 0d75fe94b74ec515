//! Fills the cache before a blow, so that what dies is as large as it will be.

use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::time::Duration;

use crate::error::{Doing, Outcome, Trouble};
use crate::probe;

use super::tree::Tree;

/// The object that is asked for under ever other queries, and its size.
const OBJECT: (&str, u64) = ("/c/1m", 1 << 20);
/// Connections at a time.
const CONNECTIONS: u64 = 4;
/// The cache is full when it holds so much of its budget, in hundredths: the last object does not fit.
const FULL: u64 = 90;
/// Requests beyond those that fill it, as a share of them: some objects are not let in.
const SURPLUS: u64 = 2;
/// Bound of each wait on a connection.
const PATIENCE: Duration = Duration::from_secs(10);

/// Asks for objects until the cache is full. Nothing, when it is full already, or there is none.
pub(super) fn fill(tree: &Tree<'_>, port: u16, cache_mib: u64) -> Outcome<()> {
    if cache_mib == 0 || is_full(tree)? {
        return Ok(());
    }
    let objects = (cache_mib << 20) / OBJECT.1;
    for round in 0..=SURPLUS {
        let ask = |first: u64| -> Outcome<()> {
            let address = SocketAddrV4::new(Ipv4Addr::LOCALHOST, port);
            let mut stream = TcpStream::connect_timeout(&address.into(), PATIENCE).doing("filling the cache")?;
            stream.set_read_timeout(Some(PATIENCE)).doing("filling the cache")?;
            for number in (first..objects).step_by(usize::try_from(CONNECTIONS).unwrap_or(1)) {
                let path = format!("{}?fill={round}-{number}", OBJECT.0);
                let answer = probe::exchange(&mut stream, port, &path, &[])?;
                if answer.status != 200 {
                    return Err(Trouble::Wrong(format!("{path} was answered {}", answer.status)));
                }
            }
            Ok(())
        };
        std::thread::scope(|scope| {
            let asking: Vec<_> = (0..CONNECTIONS).map(|first| scope.spawn(move || ask(first))).collect();
            let asked: Outcome<Vec<()>> = asking
                .into_iter()
                .map(|one| one.join().unwrap_or_else(|_| Err(Trouble::Wrong("panic".into()))))
                .collect();
            asked
        })?;
        if is_full(tree)? {
            return Ok(());
        }
    }
    Err(Trouble::Wrong("the cache does not get full".to_owned()))
}

fn is_full(tree: &Tree<'_>) -> Outcome<bool> {
    let number = |name: &str| -> Outcome<u64> {
        let text = tree.ask(&["ctl", "metric", "get", name])?;
        let value = text.split_whitespace().last().and_then(|word| word.parse().ok());
        value.ok_or_else(|| Trouble::Wrong(format!("{name} is not understood: {text:?}")))
    };
    let budget = number("beltway_cache_budget_bytes")?;
    // A server that has just begun has not told any number yet.
    Ok(budget > 0 && number("beltway_cache_used_bytes")? * 100 >= budget * FULL)
}
