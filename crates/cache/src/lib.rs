//! The cache: what was fetched once is kept, and what many ask for at once is fetched once.
//!
//! It knows no HTTP. A [`Key`] is a hash of what the engine calls an object; under it lie *alternates*, each with the
//! engine's own record (**metadata**, ready to be sent), a body of [`Fragment`]s and [`Tags`]. Which alternate answers a
//! request is the engine's judgement ([`Choose`]); what is fresh, what may be stored and for how long, too. There is no
//! clock here and no wait that ends by itself: moments are arguments, and whoever waits brings a waker and a bound.
//!
//! ```text
//! look_up ──> Hit: metadata, body ────────────────────────────────────────> sent as it is
//!    └─────> Miss ─ enter ─┬─ Writer: start, append …, finish ──> stored
//!                          ├─ Follow: head, next … ─────────────> sent as it comes
//!                          └─ Bypass, Full: alone
//! ```
//!
//! Read [`Store`] first, then [`Writer`] and [`Follower`]; [`RamStore`] is the store in memory. What is kept and what is
//! evicted is decided in `ram::queues`, who follows whom in `flight`: both are pure.

mod alternate;
mod body;
mod budget;
mod describe;
mod flight;
mod follow;
mod gate;
mod key;
mod metrics;
mod pieces;
mod ram;
mod ramp;
mod store;
mod wait;
mod worth;
mod write;

pub use alternate::{Alternates, Candidate, Choose, Hit, Seen, TAGS_BYTES_MAX, TAGS_MAX, Tags, TagsError};
pub use body::{Body, Fragment, Fragments};
pub use describe::{AlternateDescription, DeclinedDescription, Description, FetchDescription};
pub use follow::{Cut, Follower, FollowerHead, Next};
pub use gate::{Gate, GateNumbers, Permit, Refused};
pub use key::{Key, Lane};
pub use metrics::{Cache, Numbers, Publisher};
pub use ram::{RamOptions, RamStore};
pub use ramp::{Ramp, RampOptions};
pub use store::{Entrance, Found, LookUp, Purge, Reason, Role, Store};
pub use wait::Awaited;
pub use worth::{ALONE_BYTES_MAX, Progress};
pub use write::{Head, Kept, Writer};
