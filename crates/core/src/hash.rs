//! One stable hash: the same on every machine and in every version, because placement depends on it.

/// Hash of the parts, with their boundaries.
#[must_use]
pub fn stable(parts: &[&[u8]]) -> u64 {
    let mut hash = 0x9e37_79b9_7f4a_7c15_u64;
    for part in parts {
        let one = rapidhash::v3::rapidhash_v3(part);
        hash = mix(hash ^ one.rotate_left(17));
    }
    hash
}

/// Mixes one value (finaliser of splitmix64).
#[must_use]
pub fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}
