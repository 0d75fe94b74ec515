//! What a server is told on its command line, and the listeners it makes of that.

use std::os::fd::RawFd;

use config::Config;
use supervise::failure::Failure;
use supervise::listener::{Listener, ListenerKind, ListenerName, Promised, wanted};
use supervise::role;

/// The command line of a server.
#[derive(Clone, Debug)]
pub struct Options {
    /// What all roles share.
    pub role: role::Options,
    /// The generation that manager gave it; `None`: it runs alone, and binds its listeners itself.
    pub generation: Option<u64>,
    /// Promised listeners for HTTP clients.
    pub http: Vec<Promised>,
    /// Promised listeners for its own page.
    pub server_page: Vec<Promised>,
    /// Promised listeners for the embedded origin.
    pub demo: Vec<Promised>,
    /// The descriptor of the lease that manager reserved.
    pub lease: Option<RawFd>,
    /// The descriptor of a pipe that gets one line when it is ready.
    pub ready: Option<RawFd>,
}

/// Takes over the promised listeners, named as the configuration names them.
///
/// # Errors
/// A descriptor is not open, is no listener, or is bound to another port than was promised.
pub(crate) fn inherit(options: &Options, config: &Config) -> Result<Vec<Listener>, Failure> {
    let names = wanted(config);
    let mut listeners = Vec::new();
    let kinds = [
        (ListenerKind::Http, &options.http),
        (ListenerKind::Server, &options.server_page),
        (ListenerKind::Demo, &options.demo),
    ];
    for (kind, promised) in kinds {
        for (index, promise) in promised.iter().enumerate() {
            let what = || format!("descriptor {} for {} listener {index}", promise.fd, kind.as_str());
            let fd = sys::process::inherited(promise.fd).map_err(|error| Failure::could_not(what(), error))?;
            let address = sys::socket::local_address(&fd)
                .map_err(|error| Failure::could_not(what(), error))?
                .ok_or_else(|| Failure::could_not(what(), "it has no IP address"))?;
            if promise.port != 0 && promise.port != address.port() {
                let why = format!("it is bound to {address}, not to port {}", promise.port);
                return Err(Failure::could_not(what(), why));
            }
            let name = names.iter().find(|name| name.kind == kind && name.index == index).cloned();
            let name = name.unwrap_or(ListenerName { kind, index, configured: address, backlog: 0 });
            listeners.push(Listener { name, fd });
        }
    }
    Ok(listeners)
}

/// Binds every listener that the configuration gives a server.
///
/// # Errors
/// Which address cannot be listened on, and why.
pub(crate) fn bind(config: &Config) -> Result<Vec<Listener>, Failure> {
    let names = wanted(config).into_iter().filter(|name| name.kind.is_servers());
    names
        .map(|name| {
            let (kind, address) = (name.kind.as_str(), name.configured);
            Listener::bind(name)
                .map_err(|error| Failure::could_not(format_args!("cannot listen on {address} ({kind})"), error))
        })
        .collect()
}
