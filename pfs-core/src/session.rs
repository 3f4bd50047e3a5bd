//! The session: nodes, handles and the negotiation's result as fixed-size records.
