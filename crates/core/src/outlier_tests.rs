//! Pools in numbers: who is worse than the rest, and who only seems so.

use super::*;

fn tally(attempts: u64, errors: u64, heads: &[(u64, u64)]) -> Tally {
    let mut tally = Tally { attempts, errors, ..Tally::default() };
    for (millis, count) in heads {
        tally.heads[BUCKETS.partition_point(|bound| *bound < millis * 1000)] += count;
    }
    tally
}

fn judged(own: &Tally, others: &[Tally]) -> Option<Accused> {
    among(own, others, &Terms { rule: &Outlier::default(), excused: Duration::from_millis(100) })
}

fn among(own: &Tally, others: &[Tally], terms: &Terms<'_>) -> Option<Accused> {
    let said = judge(own, &mut Crowd::new(others.iter().chain([own]).copied()), terms);
    assert!(suspicious(own, terms) || said.is_none(), "nobody is accused who was not looked at: {said:?}");
    said
}

fn wrong(errors: u64, of: u64, others: &[(u64, u64)]) -> Option<Accused> {
    let answered = |errors, of| tally(of, errors, &[(5, of)]);
    let others: Vec<Tally> = others.iter().map(|(errors, of)| answered(*errors, *of)).collect();
    judged(&answered(errors, of), &others)
}

fn slow(own: &[(u64, u64)], others: &[&[(u64, u64)]]) -> Option<Accused> {
    let whole = |heads: &[(u64, u64)]| tally(heads.iter().map(|(_, count)| count).sum(), 0, heads);
    let others: Vec<Tally> = others.iter().map(|heads| whole(heads)).collect();
    judged(&whole(own), &others)
}

#[test]
fn three_in_ten_are_told_from_none_with_few_answers_and_with_many() {
    let clean = [(0, 40), (0, 40), (0, 40)];
    let accused = wrong(12, 40, &clean).unwrap();
    assert_eq!(accused.why, "12 of 40 answers were errors, pool median 0 %");
    assert_eq!(accused.reason, Reason::Errors);
    assert!(wrong(300, 1000, &[(0, 1000)]).is_some());
    assert!(wrong(7, 20, &[(0, 20), (0, 20), (1, 20), (0, 20), (0, 20)]).is_some(), "five others say more than one");
    assert!(wrong(7, 20, &[(0, 20)]).is_none(), "one other backend with few answers is no proof");
    assert!(wrong(10, 10, &[(0, 10)]).is_some(), "all wrong shows at once");
}

#[test]
fn what_was_not_answered_is_not_called_an_answer() {
    let told = |heads: &[(u64, u64)]| {
        let accused = judged(&tally(40, 40, heads), &[tally(40, 0, &[(5, 40)])]);
        accused.map(|accused| accused.why)
    };
    assert_eq!(told(&[(5, 40)]).unwrap(), "40 of 40 answers were errors, pool median 0 %");
    assert_eq!(told(&[(5, 39)]).unwrap(), "40 of 40 requests failed, pool median 0 %");
    assert_eq!(told(&[]).unwrap(), "40 of 40 requests failed, pool median 0 %");
}

#[test]
fn what_all_have_in_common_accuses_nobody() {
    assert!(wrong(300, 1000, &[(300, 1000), (310, 1000), (290, 1000)]).is_none());
    assert!(wrong(1000, 1000, &[(1000, 1000), (1000, 1000)]).is_none());
    assert!(wrong(400, 1000, &[(250, 1000), (260, 1000)]).is_none(), "worse, but not twice as bad");
    assert!(wrong(700, 1000, &[(250, 1000), (260, 1000)]).is_some());
    assert!(wrong(300, 1000, &[]).is_none(), "nobody to compare with");
    assert!(wrong(300, 1000, &[(0, 2)]).is_none(), "nobody who was asked enough");
}

#[test]
fn a_bad_minority_does_not_hide_behind_itself() {
    let others = [(300, 1000), (0, 1000), (0, 1000), (0, 1000), (0, 1000)];
    assert!(wrong(300, 1000, &others).is_some(), "two of six are bad");
    let half = [(300, 1000), (300, 1000), (0, 1000), (0, 1000), (0, 1000)];
    assert!(wrong(300, 1000, &half).is_some(), "three of six");
    assert!(wrong(300, 1000, &half[..4]).is_none(), "three of five: most are bad, no outlier");
    assert!(wrong(300, 1000, &[(300, 1000), (0, 1000)]).is_none(), "two of three");
}

#[test]
fn few_wrong_answers_are_no_reason() {
    assert!(wrong(190, 1000, &[(0, 1000); 3]).is_none(), "below errors_percent");
    assert!(wrong(9, 9, &[(0, 1000); 3]).is_none(), "below volume");
    let never = Outlier { errors_percent: 0, ..Outlier::default() };
    let terms = Terms { rule: &never, excused: Duration::ZERO };
    assert!(among(&tally(1000, 900, &[]), &[tally(1000, 0, &[])], &terms).is_none());
}

#[test]
fn fifty_times_slower_is_told() {
    let accused = slow(&[(940, 20)], &[&[(18, 20)], &[(18, 20)], &[(18, 20)]]).unwrap();
    assert_eq!(accused.reason, Reason::Slow);
    assert_eq!(accused.why, "answers take 0.75 s, pool median 17 ms");
    assert!(slow(&[(30_000, 30)], &[&[(18, 30)]]).is_some());
    assert!(slow(&[(5_000_000, 30)], &[&[(18, 30)]]).is_some(), "beyond all buckets");
}

#[test]
fn slow_routes_and_slow_paths_are_nobodys_fault() {
    let mixed: &[(u64, u64)] = &[(4, 40), (2_000, 60)];
    assert!(slow(mixed, &[mixed, mixed, mixed]).is_none(), "the slow route is slow everywhere");
    assert!(slow(&[(4, 60), (2_000, 40)], &[&[(4, 100)], &[(4, 100)]]).is_none(), "most of its answers are quick");
    assert!(slow(&[(2_000, 100)], &[&[(2_000, 100)], &[(2_000, 100)]]).is_none());
    assert!(slow(&[(90, 100)], &[&[(1, 100)], &[(1, 100)]]).is_none(), "what users of the contract do not feel");
    assert!(slow(&[(200, 100)], &[&[(40, 100)], &[(40, 100)]]).is_none(), "five times is not ten");
    assert!(slow(&[(940, 9)], &[&[(18, 90)], &[(18, 90)]]).is_none(), "below volume");
    let never = Outlier { slow_factor: 0, ..Outlier::default() };
    let terms = Terms { rule: &never, excused: Duration::ZERO };
    assert!(among(&tally(100, 0, &[(5_000, 100)]), &[tally(100, 0, &[(1, 100)])], &terms).is_none());
}

/// Wrong verdicts by chance: pools whose backends all fail alike, however often.
#[test]
fn chance_accuses_hardly_ever() {
    let mut random = crate::random::Random::new(11);
    let mut accused = 0;
    for round in 0..200_000_u32 {
        let share = u64::from(round % 10) * (u64::MAX / 20);
        let backends = 2 + usize::try_from(round % 5).unwrap();
        let volume = [10, 20, 50][usize::try_from(round % 3).unwrap()];
        let pool: Vec<Tally> = (0..backends)
            .map(|_| tally(volume, (0..volume).filter(|_| random.next() < share).count() as u64, &[]))
            .collect();
        accused += u32::from(judged(&pool[0], &pool[1..]).is_some());
    }
    assert!(accused <= 1, "{accused} of 200000");
}

#[test]
fn a_median_lies_in_its_bucket() {
    assert_eq!(Tally::default().median(), None);
    let median = tally(0, 0, &[(1, 10), (40, 11)]).median().unwrap();
    assert!((25_000..=50_000).contains(&median), "{median}");
    assert!(tally(0, 0, &[(1, 11), (40, 10)]).median().unwrap() <= 1_000);
    assert_eq!(tally(0, 0, &[(100_000, 3)]).median(), Some(60_000_000), "beyond all buckets");
}
