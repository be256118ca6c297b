//! Hashing in large groups without looking at everybody: a tree of coins. The members stand in the order of their hashes,
//! and each bit in which two of them differ is a node; a key goes left or right there by a coin of its own, in proportion
//! to the weights on either side.
//!
//! A node's coin depends on its place alone, so the same key takes the same way on every edge and in every order of the
//! file. The tree holds every member of a tier whatever its health: who may not be taken is passed over with the key's next
//! draw, so only the keys of a member that dies move, to all the others alike, and they come back with it. A member that
//! is added or removed changes the weights on its way: some keys more than its own move, about half the depth of the
//! tree times as many.

use super::dice::fraction;
use crate::hash::mix;
use crate::snapshot::Member;

/// Tiers up to this size are scored member by member.
pub(super) const SMALL: usize = 32;

/// The members of one tier.
#[derive(Debug)]
pub(super) struct Tree {
    pub(super) tier: u32,
    nodes: Vec<Node>,
    root: Branch,
}

#[derive(Debug, Clone, Copy)]
enum Branch {
    Node(u32),
    /// Index of a member in the pool.
    Member(u32),
}

#[derive(Debug)]
struct Node {
    /// Its place: the bits that all below it have in common, and how many.
    place: u64,
    /// Coins below this go left.
    left_below: u64,
    left: Branch,
    right: Branch,
}

impl Tree {
    /// The tree of a tier that is large enough to be worth one. `by_hash`: hash and index of every member, sorted.
    pub(super) fn of(tier: u32, members: &[Member], by_hash: &[(u64, u32)]) -> Option<Self> {
        let of_tier = |(hash, index): &(u64, u32)| {
            let member = members.get(*index as usize).filter(|member| member.tier == tier)?;
            Some((*hash, *index, u64::from(member.share())))
        };
        let sorted: Vec<(u64, u32, u64)> = by_hash.iter().filter_map(of_tier).collect();
        if sorted.len() <= SMALL {
            return None;
        }
        let mut nodes = Vec::with_capacity(sorted.len() - 1);
        let (root, _) = grow(&sorted, &mut nodes)?;
        Some(Self { tier, nodes, root })
    }

    /// The member a draw of a key leads to, as its index in the pool. Draws of one key have nothing to do with one
    /// another: all of them together reach everybody.
    pub(super) fn member(&self, key: u64, draw: u64) -> u32 {
        let key = mix(key ^ draw.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mut branch = self.root;
        loop {
            match branch {
                Branch::Member(index) => return index,
                Branch::Node(node) => {
                    let node = &self.nodes[node as usize];
                    branch = if mix(key ^ node.place) < node.left_below { node.left } else { node.right };
                }
            }
        }
    }
}

/// A number from 0.0 up to, not including, 1.0, of a draw at one member: a ramp lets it through below the part it has
/// grown to.
pub(super) fn toll(key: u64, draw: u64, member: u64) -> f64 {
    fraction(mix(mix(key ^ draw) ^ member))
}

/// The tree of members that have all bits before some bit in common, and their weight. `None`: of nobody.
fn grow(sorted: &[(u64, u32, u64)], nodes: &mut Vec<Node>) -> Option<(Branch, u64)> {
    let ((first, index, weight), (last, ..)) = (sorted.first()?, sorted.last()?);
    let common = (first ^ last).leading_zeros();
    if common == u64::BITS {
        // One member; or, once in many lives of the universe, two whose hashes are the same.
        return Some((Branch::Member(*index), *weight));
    }
    let bit = 1 << (u64::BITS - 1 - common);
    let split = sorted.partition_point(|(hash, ..)| hash & bit == 0);
    // The common bits, and a one that says where they end.
    let place = first & !(bit - 1) | bit;
    let at = nodes.len();
    nodes.push(Node { place, left_below: 0, left: Branch::Member(*index), right: Branch::Member(*index) });
    let (left, left_weight) = grow(&sorted[..split], nodes)?;
    let (right, right_weight) = grow(&sorted[split..], nodes)?;
    let both = left_weight + right_weight;
    let left_below = (u128::from(left_weight) << u64::BITS) / u128::from(both.max(1));
    let node = nodes.get_mut(at)?;
    (node.left_below, node.left, node.right) = (u64::try_from(left_below).unwrap_or(u64::MAX), left, right);
    Some((Branch::Node(u32::try_from(at).unwrap_or(u32::MAX)), both))
}
