//! What a further attempt of a request costs its service's budget.

use crate::Fault;

/// Whether a retry costs nothing. Off a dead connection it does not: the load it moves is load that left a backend. The first
/// one of a request never does, as all may have died together and be back in a moment. Further ones do where all who are left
/// fail too: each is one more failure for a service that has enough of them.
///
/// `first`: the request was sent to nobody before; `others_well`: somebody else may be asked who does not fail; `others`:
/// somebody else may be asked at all.
#[must_use]
pub fn is_free(fault: Fault, first: bool, others_well: impl FnOnce() -> bool, others: impl FnOnce() -> bool) -> bool {
    fault.is_transport() && (first || others_well() || !others())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_retry_off_a_dead_connection_is_free_unless_all_others_fail_too() {
        let free = |fault, first, well, others| is_free(fault, first, || well, || others);
        assert!(free(Fault::Reset, true, false, true), "the first always");
        assert!(free(Fault::Reset, false, true, true), "somebody is well");
        assert!(!free(Fault::Reset, false, false, true), "all others fail");
        assert!(free(Fault::Reset, false, false, false), "nobody else: it waits for who comes back");
        assert!(!free(Fault::Status(503), true, true, true), "an answer is no dead connection");
        assert!(!free(Fault::ResponseTimeout, true, true, true));
    }
}
