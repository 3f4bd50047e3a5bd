//! A daemon ends, in order or by a kill, and the next one goes on: with the session's nodes,
//! handles and lookups, and with the requests in flight, each of which is served exactly once.
//!
//! What one daemon leaves to the next is two memfds: the session's records and the log of
//! requests in flight. The tests play the keeper, which passes them on.
//!
//! - [`session`]: what goes on with nothing in flight.
//! - [`points`]: a death at each place in the life of a request.
//! - [`load`]: deaths at any moment, under load. [`orphans`]: files without a name. [`sizes`]:
//!   truncations.

mod load;
mod orphans;
mod points;
mod session;
mod sizes;
