//! What an agent leaves of a member: its share and its cap.

use super::*;
use crate::balancer::fixture::pool;

#[test]
fn a_share_shrinks_and_grows_beside_the_others() {
    for balance in [Balance::RoundRobin, Balance::Random, Balance::Hash(HashKey::ClientAddress)] {
        let pool = pool(balance.clone(), "1 dijon a, 1 dijon b x2").changed(|members| members[1].percent = 150);
        let due = [("a", 0.25), ("b", 0.75)];
        Shares::of(&pool, 40_000, client).must_be(&format!("{balance:?}"), &due);
    }
}

#[test]
fn a_tier_whose_agents_all_ask_for_less_keeps_its_traffic() {
    for balance in EVERY {
        let pool = pool(balance.clone(), "1 dijon a, 1 dijon b, 2 thory c");
        let pool = pool.changed(|members| (members[0].percent, members[1].percent) = (10, 10));
        assert_eq!(Shares::of(&pool, 1_000, client).at("c"), 0.0, "{balance:?}: percents only divide a tier");
    }
}

#[test]
fn a_cap_of_the_agent_holds_beside_the_declared_one() {
    for balance in EVERY {
        let pool = pool(balance.clone(), "1 dijon a, 1 dijon b").declared(|forward| forward.max_inflight = Some(5));
        let pool = pool.changed(|members| members[0].cap = Some(1));
        let _full = pool.named("a").backend.enter();
        assert_eq!(Shares::of(&pool, 500, client).at("b"), 1.0, "{balance:?}");
    }
}
