//! One stable hash: the same on every machine and in every version, because placement depends on it.
//!
//! It only mixes bytes. It is not a secret and protects nothing: signatures are made elsewhere.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;

/// A map that requests look into, by keys of our own or of the config: a fixed seed gives clients nothing to attack, and the
/// standard library's hash takes several times as long.
pub type Table<K, V> = HashMap<K, V, BuildHasherDefault<rapidhash::fast::RapidHasher<'static>>>;

/// Hash of the parts, with their boundaries: `["ab", "c"]` and `["a", "bc"]` differ.
///
/// Rapidhash v3 with its default seed over each part, chained by [`mix`]. Changing it would move every client of a
/// hashing or sticky service to another backend, so its values are pinned by tests.
#[must_use]
pub fn stable(parts: &[&[u8]]) -> u64 {
    let mut hash = 0x9e37_79b9_7f4a_7c15_u64;
    for part in parts {
        let one = rapidhash::v3::rapidhash_v3(part);
        hash = mix(hash ^ one.rotate_left(17));
    }
    hash
}

/// Mixes one value (finaliser of splitmix64): a bijection in which every input bit reaches every output bit.
#[must_use]
pub fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_values_never_change() {
        let url = "/a/long/path/that/fills/more/than/one/block/of/the/hash/function/and/then/some?with=query&and=more";
        let pinned: [(&[&str], u64); 9] = [
            (&[], 0x9e37_79b9_7f4a_7c15),
            (&[""], 0xf0c8_44ad_f45f_8731),
            (&["a"], 0xa1ec_5d23_a9f1_9958),
            (&["", "a"], 0x4cdf_46a1_091f_2eef),
            (&["a", ""], 0x631a_4aa2_5022_b835),
            (&["ab", "c"], 0x77c3_2036_6c9b_439a),
            (&["a", "bc"], 0x1a44_de23_5c96_ec77),
            (&["api", "dijon", "10.200.0.23:8080"], 0x7135_d24c_6e43_13c9),
            (&[url], 0xf2c7_fba6_4714_b8f4),
        ];
        for (parts, hash) in pinned {
            let bytes: Vec<&[u8]> = parts.iter().map(|part| part.as_bytes()).collect();
            assert_eq!(stable(&bytes), hash, "{parts:?}");
        }
        assert_eq!(mix(1), 0x5692_161d_100b_05e5);
        assert_eq!(mix(u64::MAX), 0xb4d0_55fc_f2cb_bd7b);
        assert_eq!(mix(0x9e37_79b9_7f4a_7c15), 0xe220_a839_7b1d_cdaf, "the first number of splitmix64 from seed 0");
    }

    #[test]
    fn each_input_bit_reaches_about_half_of_the_output() {
        let mut flipped = 0;
        for seed in 0..1_000_u64 {
            let bit = 1 << (seed % 64);
            let (one, other) = (seed.to_le_bytes(), (seed ^ bit).to_le_bytes());
            flipped += (stable(&[&one]) ^ stable(&[&other])).count_ones();
        }
        let mean = f64::from(flipped) / 1_000.0;
        assert!((31.0..33.0).contains(&mean), "{mean} of 64 bits flip");
    }
}
