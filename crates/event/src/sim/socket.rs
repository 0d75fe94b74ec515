//! The faces of the simulated network that a driver holds: what a descriptor is elsewhere.

use std::fmt;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sys::epoll::Ready;

use super::end::errno;
use super::network::{EndId, Network};

/// All faces of one network share it. Locked for one operation each; nothing runs meanwhile.
#[derive(Clone)]
pub(super) struct Shared(Arc<Mutex<Network>>);

impl Shared {
    pub(super) fn new(network: Network) -> Self {
        Self(Arc::new(Mutex::new(network)))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Network> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One end of a connection; it closes when the last hold on it goes.
pub(crate) struct SimSocket {
    network: Shared,
    id: EndId,
}

impl SimSocket {
    fn new(network: &Shared, id: EndId) -> Arc<Self> {
        Arc::new(Self { network: network.clone(), id })
    }

    pub(crate) fn receive(&self, into: &mut [MaybeUninit<u8>]) -> io::Result<usize> {
        self.network.lock().receive(self.id, into)
    }

    pub(crate) fn send(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.network.lock().send(self.id, slices)
    }

    pub(crate) fn shutdown_write(&self) -> io::Result<()> {
        self.network.lock().shutdown_write(self.id)
    }

    pub(crate) fn abort_on_close(&self) -> io::Result<()> {
        self.network.lock().end_mut(self.id).abort_on_close = true;
        Ok(())
    }

    pub(crate) fn take_error(&self) -> io::Result<()> {
        self.network.lock().end_mut(self.id).error.take().map_or(Ok(()), |code| Err(errno(code)))
    }

    pub(crate) fn is_quiet(&self) -> bool {
        self.network.lock().end_mut(self.id).is_quiet()
    }

    pub(crate) fn local_address(&self) -> SocketAddr {
        self.network.lock().end_mut(self.id).local
    }
}

impl Drop for SimSocket {
    fn drop(&mut self) {
        self.network.lock().release(self.id);
    }
}

impl fmt::Debug for SimSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SimSocket({})", self.id)
    }
}

/// A listening socket; it closes when it is dropped.
pub(crate) struct SimListener {
    network: Shared,
    id: usize,
}

impl SimListener {
    pub(super) fn new(network: &Shared, address: SocketAddr, backlog: usize) -> Self {
        let id = network.lock().listen(address, backlog);
        Self { network: network.clone(), id }
    }
}

impl Drop for SimListener {
    fn drop(&mut self) {
        self.network.lock().close_listener(self.id);
    }
}

impl fmt::Debug for SimListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SimListener({})", self.id)
    }
}

/// One thread's share of the network: its readiness queue.
pub(crate) struct SimDriver {
    network: Shared,
    id: usize,
}

impl SimDriver {
    pub(super) fn new(network: &Shared) -> Self {
        let id = network.lock().add_driver();
        Self { network: network.clone(), id }
    }

    pub(crate) fn register(&self, socket: &SimSocket, token: u64, writes: bool) {
        self.network.lock().watch(self.id, socket.id, token, writes);
    }

    pub(crate) fn unregister(&self, socket: &SimSocket) {
        self.network.lock().unwatch(socket.id);
    }

    pub(crate) fn register_listener(&self, listener: &SimListener, token: u64) {
        self.network.lock().watch_listener(self.id, listener.id, token);
    }

    pub(crate) fn unregister_listener(&self, listener: &SimListener) {
        self.network.lock().unwatch_listener(self.id, listener.id);
    }

    pub(crate) fn accept(&self, listener: &SimListener) -> io::Result<(Arc<SimSocket>, SocketAddr)> {
        let (id, peer) = self.network.lock().accept(listener.id)?;
        Ok((SimSocket::new(&self.network, id), peer))
    }

    pub(crate) fn connect(&self, address: SocketAddr) -> io::Result<Arc<SimSocket>> {
        let id = self.network.lock().connect(address)?;
        Ok(SimSocket::new(&self.network, id))
    }

    /// Hands out what is ready now; a simulated thread never sleeps here, its world does.
    pub(crate) fn wait(&self, mut deliver: impl FnMut(u64, Ready)) -> usize {
        let mut events = Vec::new();
        self.network.lock().take_ready(self.id, &mut events);
        for &(token, ready) in &events {
            deliver(token, ready);
        }
        events.len()
    }

    pub(crate) fn has_ready(&self) -> bool {
        self.network.lock().has_ready(self.id)
    }

    /// How long a look-up takes, and its outcome; `None`: it is never answered.
    pub(crate) fn look_up(&self, name: &str) -> (Duration, Option<Result<Vec<IpAddr>, String>>) {
        self.network.lock().look_up(name)
    }
}
