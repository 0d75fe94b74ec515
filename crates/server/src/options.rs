//! What a server is told on its command line, and the listeners it makes of that.

use std::os::fd::RawFd;

use config::Config;
use supervise::failure::Failure;
use supervise::listener::{self, Listener, ListenerKind, Promised, wanted};
use supervise::role;

/// The command line of a server.
#[derive(Clone, Debug)]
pub struct Options {
    /// What all roles share.
    pub role: role::Options,
    /// The generation that manager gave it; `None`: it runs alone, and binds its listeners itself.
    pub generation: Option<u64>,
    /// It accepts nothing until it is promoted.
    pub standby: bool,
    /// Promised listeners, by what they are for.
    pub promised: Vec<(ListenerKind, Vec<Promised>)>,
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
    for (kind, promised) in &options.promised {
        let kind = *kind;
        for (index, promise) in promised.iter().enumerate() {
            let what = || format!("descriptor {} for {} listener {index}", promise.fd, kind.as_str());
            let fd = sys::process::inherited(promise.fd).map_err(|error| Failure::could_not(what(), error))?;
            let address = sys::socket::local_address(&fd).map_err(|error| Failure::could_not(what(), error))?;
            if promise.port != 0 && address.is_none_or(|address| address.port() != promise.port) {
                let bound = address.map_or_else(|| "no IP address".to_owned(), |address| address.to_string());
                let why = format!("it is bound to {bound}, not to port {}", promise.port);
                return Err(Failure::could_not(what(), why));
            }
            let name = names.iter().find(|name| name.kind == kind && name.index == index).cloned();
            let name = name.ok_or_else(|| Failure::could_not(what(), "the configuration has no such listener"))?;
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
    let bound = names.map(|name| {
        let (kind, address) = (name.kind.as_str(), name.configured.clone());
        Listener::bind(name)
            .map_err(|error| Failure::could_not(format_args!("cannot listen on {address} ({kind})"), error))
    });
    let listeners: Vec<_> = bound.collect::<Result<_, _>>()?;
    listener::warn_of_cut_queues(&listeners);
    Ok(listeners)
}
