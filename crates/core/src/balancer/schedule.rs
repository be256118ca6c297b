//! The turn order of round robin, computed once per change so that a pick is one table look-up.

/// Longest turn order. Weights whose reduced sum is larger are rounded to fit: a member's share then differs from its
/// weight by at most about one turn in [`MAX_TURNS`], and nobody falls below one turn.
pub(super) const MAX_TURNS: u64 = 8192;

/// Members (by position in `weights`) in the order of their turns, one whole cycle.
///
/// Smooth weighted round robin: at every turn each runner gains its weight, the one that is owed most goes and pays
/// the sum of all weights. Members of equal weight run as one and alternate inside their turns, which keeps the
/// work at turns x distinct weights; the bound on turns also bounds the distinct weights (about 128).
pub(super) fn smooth(weights: &[u32]) -> Vec<u32> {
    let reduced = reduce(weights);
    let mut runners = runners(&reduced);
    let sum: i64 = runners.iter().map(|runner| runner.gain).sum();
    let mut turns = Vec::with_capacity(usize::try_from(sum).unwrap_or(0));
    for _ in 0..sum {
        runners.iter_mut().for_each(|runner| runner.owed += runner.gain);
        let most = runners.iter().map(|runner| runner.owed).max().unwrap_or(0);
        // The first of the most owed goes: like the file's order, and the same on every machine.
        if let Some(runner) = runners.iter_mut().find(|runner| runner.owed == most) {
            runner.owed -= sum;
            turns.push(runner.members[runner.turn % runner.members.len()]);
            runner.turn += 1;
        }
    }
    turns
}

/// All members of one weight.
struct Runner {
    members: Vec<u32>,
    gain: i64,
    owed: i64,
    turn: usize,
}

fn runners(weights: &[u64]) -> Vec<Runner> {
    let mut runners: Vec<(u64, Runner)> = Vec::new();
    for (position, &weight) in (0_u32..).zip(weights) {
        let gain = i64::try_from(weight).unwrap_or(i64::MAX);
        match runners.iter_mut().find(|(known, _)| *known == weight) {
            Some((_, runner)) => {
                runner.members.push(position);
                runner.gain += gain;
            }
            None => runners.push((weight, Runner { members: vec![position], gain, owed: 0, turn: 0 })),
        }
    }
    runners.into_iter().map(|(_, runner)| runner).collect()
}

/// The weights in smallest terms, rounded when even those are too many turns.
fn reduce(weights: &[u32]) -> Vec<u64> {
    let exact: Vec<u64> = in_smallest_terms(weights.iter().map(|&weight| u64::from(weight.max(1))).collect());
    let sum: u64 = exact.iter().sum();
    if sum <= MAX_TURNS {
        return exact;
    }
    in_smallest_terms(exact.into_iter().map(|weight| ((weight * MAX_TURNS + sum / 2) / sum).max(1)).collect())
}

fn in_smallest_terms(mut weights: Vec<u64>) -> Vec<u64> {
    let common = weights.iter().copied().fold(0, greatest_common_divisor).max(1);
    weights.iter_mut().for_each(|weight| *weight /= common);
    weights
}

fn greatest_common_divisor(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letters(weights: &[u32]) -> String {
        smooth(weights).into_iter().map(|member| char::from(b'a' + u8::try_from(member).unwrap())).collect()
    }

    #[test]
    fn distinct_weights_give_the_well_known_sequence() {
        assert_eq!(letters(&[3, 2, 1]), "abacba");
        assert_eq!(letters(&[4, 2, 1]), "abacaba");
        assert_eq!(letters(&[30, 20, 10]), "abacba", "only the ratio counts");
    }

    #[test]
    fn equal_weights_take_turns_in_file_order() {
        assert_eq!(letters(&[1, 1, 1, 1]), "abcd");
        assert_eq!(letters(&[7, 7]), "ab");
        assert_eq!(letters(&[9]), "a");
        assert_eq!(letters(&[]), "");
    }

    #[test]
    fn light_members_are_spread_between_the_heavy_one() {
        assert_eq!(letters(&[5, 1, 1]), "abaaaca");
    }

    #[test]
    fn a_cycle_holds_each_member_exactly_as_often_as_its_weight() {
        for weights in [vec![5, 1, 1], vec![1000, 999, 1], vec![13, 21, 34, 55, 1, 1], (1..=100).collect()] {
            let mut counts = vec![0; weights.len()];
            smooth(&weights).into_iter().for_each(|member| counts[member as usize] += 1);
            assert_eq!(counts, weights);
        }
    }

    #[test]
    fn no_member_waits_much_longer_than_its_share_says() {
        let weights: Vec<u32> = vec![50, 30, 10, 7, 2, 1];
        let turns = smooth(&weights);
        for (member, weight) in (0_u32..).zip(&weights) {
            let at: Vec<usize> = (0..turns.len() * 2).filter(|i| turns[i % turns.len()] == member).collect();
            let fair = turns.len() as f64 / f64::from(*weight);
            let longest = at.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap() as f64;
            assert!(longest <= 2.0 * fair + 1.0, "member {member} waits {longest} turns, fair are {fair}");
        }
    }

    #[test]
    fn long_cycles_are_rounded_to_the_bound_and_nobody_is_left_out() {
        let mut weights: Vec<u32> = (0..1000).map(|i| if i % 2 == 0 { 997 } else { 499 }).collect();
        weights.push(1);
        let turns = smooth(&weights);
        assert!(turns.len() as u64 <= MAX_TURNS + 1000, "{} turns", turns.len());
        let mut counts = vec![0_u32; weights.len()];
        turns.iter().for_each(|&member| counts[member as usize] += 1);
        let sum: u32 = weights.iter().sum();
        for (count, weight) in counts.iter().zip(&weights) {
            let due = f64::from(*weight) / f64::from(sum);
            let got = f64::from(*count) / turns.len() as f64;
            assert!(*count > 0 && (got - due).abs() < 1.5 / MAX_TURNS as f64, "got {got}, due {due}");
        }
    }
}
