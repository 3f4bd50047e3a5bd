//! striper
