//! Names to addresses: asked of the system on ET_TASK, or of the simulated network. Nothing is remembered here.

use std::net::{IpAddr, ToSocketAddrs};

use crate::background::{BackgroundError, background};
use crate::thread::Thread;

/// Why a name was not looked up.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LookupError {
    /// There is no such name, or it has no address: what the resolver says.
    Unknown(String),
    /// Nobody was free to ask.
    Background(BackgroundError),
}

impl std::fmt::Display for LookupError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unknown(why) => f.write_str(why),
            Self::Background(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for LookupError {}

/// The addresses of `name`, at least one, in the resolver's order, none twice. May take as long as the resolver does,
/// or for ever: put a limit to it.
///
/// # Errors
/// When there is no such name, or nobody to ask.
pub async fn look_up(thread: &Thread, name: &str) -> Result<Vec<IpAddr>, LookupError> {
    #[cfg(any(test, feature = "sim"))]
    if let crate::driver::Driver::Sim(driver) = &thread.core().driver {
        let (delay, outcome) = driver.look_up(name);
        thread.sleep(delay).await;
        return match outcome {
            Some(outcome) => outcome.map_err(LookupError::Unknown),
            None => std::future::pending().await,
        };
    }
    #[cfg(not(any(test, feature = "sim")))]
    let _ = thread;
    let Some(background) = background() else { return Err(LookupError::Background(BackgroundError::Stopped)) };
    let name = Box::<str>::from(name);
    match background.run(move || ask_system(&name)).await {
        Ok(outcome) => outcome.map_err(LookupError::Unknown),
        Err(error) => Err(LookupError::Background(error)),
    }
}

/// Asks the system; blocks.
fn ask_system(name: &str) -> Result<Vec<IpAddr>, String> {
    let mut addresses: Vec<IpAddr> = Vec::new();
    for address in (name, 0).to_socket_addrs().map_err(|error| error.to_string())? {
        if !addresses.contains(&address.ip()) {
            addresses.push(address.ip());
        }
    }
    if addresses.is_empty() { Err("it has no address".into()) } else { Ok(addresses) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn localhost_resolves_and_a_name_that_cannot_exist_does_not() {
        assert!(ask_system("localhost").unwrap().iter().all(IpAddr::is_loopback));
        assert!(ask_system("not..a..name").is_err());
    }
}
