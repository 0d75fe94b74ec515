//! What the walks share: real processes of Beltway, real peers, raw sockets.
