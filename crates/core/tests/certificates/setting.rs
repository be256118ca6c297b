//! What a run is about: which CAs, which names, what goes wrong when. All drawn from the seed.

use relais_core::config::AuthorityLimits;

pub(crate) const MINUTE: u64 = 60_000_000;
pub(crate) const HOUR: u64 = 60 * MINUTE;
pub(crate) const DAY: u64 = 24 * HOUR;
/// 2027-01-15.
pub(crate) const START: u64 = 1_800_000_000_000_000;

/// Numbers from a seed (splitmix64).
#[derive(Debug, Clone)]
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    pub(crate) fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Outages,
    OneHour,
    Restarts,
    Jumps,
    /// The wall clock leaps while the process runs.
    Leaps,
    /// Clients ask for names that nobody listed.
    Demand,
    FailingFirst,
    Limits,
    Names,
    Windows,
    Many,
}

#[derive(Debug, Clone)]
pub(crate) struct Setting {
    pub(crate) kind: Kind,
    pub(crate) seed: u64,
    /// Lifetime in days.
    pub(crate) life: u64,
    pub(crate) days: u64,
    pub(crate) names: Vec<String>,
    pub(crate) limits: AuthorityLimits,
    /// The CA says when to renew.
    pub(crate) ari: bool,
    /// Orders that fail, in percent.
    pub(crate) failing: u64,
    /// When the CA cannot be reached: from, to.
    pub(crate) outages: Vec<(u64, u64)>,
    /// Restarts, in order.
    pub(crate) restarts: Vec<u64>,
    /// Changes of the file.
    pub(crate) reloads: Vec<u64>,
    /// Leaps of the wall clock.
    pub(crate) leaps: Vec<u64>,
}

impl Setting {
    pub(crate) fn draw(kind: Kind, seed: u64) -> Setting {
        let mut dice = Dice(seed ^ 0x5eed);
        let life = [90, 45, 6][usize::try_from(seed % 3).unwrap()];
        let days = match kind {
            Kind::Many => 130,
            _ if life == 6 => 200,
            _ => 1000,
        };
        let count = if kind == Kind::Many { 1000 } else { 2 + dice.below(4) };
        let mut names: Vec<String> = (0..count).map(|number| format!("n{number}.site{}.fr", number % 40)).collect();
        if kind == Kind::Limits {
            // Many more names under one domain than it allows in a week.
            names = (0..30).map(|number| format!("n{number}.one.fr")).collect();
        }
        if kind == Kind::Demand {
            names = (0..25).map(|number| format!("n{number}.client{number}.fr")).collect();
        }
        let mut setting = Setting {
            kind,
            seed,
            life,
            days: if kind == Kind::Limits { days.min(300) } else { days },
            names,
            limits: AuthorityLimits::default(),
            ari: kind != Kind::Many && dice.chance(70),
            failing: 0,
            outages: Vec::new(),
            restarts: Vec::new(),
            reloads: Vec::new(),
            leaps: Vec::new(),
        };
        setting.trouble(&mut dice);
        setting
    }

    fn trouble(&mut self, dice: &mut Dice) {
        let end = START + self.days * DAY;
        match self.kind {
            Kind::Outages => {
                self.failing = 10;
                // Longer ones no schedule survives.
                let longest = if self.life == 6 { 30 * HOUR } else { 8 * DAY };
                self.each(dice, 12 * DAY, end, |setting, at, dice| {
                    setting.outages.push((at, at + dice.below(longest)));
                });
            }
            Kind::OneHour => {
                let mut at = START;
                while at < end {
                    let open = at + dice.below(DAY - HOUR);
                    self.outages.push((at, open));
                    self.outages.push((open + HOUR, at + DAY));
                    at += DAY;
                }
                // The first day is whole.
                self.outages.retain(|(from, _)| *from > START + DAY);
            }
            Kind::Restarts | Kind::Jumps => {
                self.failing = 20;
                let mean = if self.kind == Kind::Jumps { 15 * DAY } else { DAY };
                self.each(dice, mean, end, |setting, at, _| setting.restarts.push(at));
            }
            Kind::Leaps => {
                self.failing = 10;
                self.each(dice, 12 * DAY, end, |setting, at, _| setting.leaps.push(at));
                self.each(dice, 50 * DAY, end, |setting, at, _| setting.restarts.push(at));
            }
            Kind::Demand => {
                self.failing = 10;
                self.each(dice, 9 * DAY, end, |setting, at, _| setting.restarts.push(at));
            }
            Kind::Limits => {
                self.failing = 40;
                self.limits =
                    AuthorityLimits { orders: Some(8), per_domain: Some(5), per_set: Some(3), failures: Some(4) };
                self.each(dice, DAY / 2, end, |setting, at, _| setting.restarts.push(at));
            }
            Kind::Names => self.each(dice, DAY * 2 / 3, end, |setting, at, _| setting.reloads.push(at)),
            Kind::Windows => self.ari = true,
            Kind::Many => {
                self.limits.orders = Some(300);
                self.failing = 5;
            }
            Kind::FailingFirst => {}
        }
    }

    /// Something again and again, so often on average.
    fn each(&mut self, dice: &mut Dice, mean: u64, end: u64, mut what: impl FnMut(&mut Setting, u64, &mut Dice)) {
        let mut at = START + 2 * DAY;
        while at < end {
            what(self, at, dice);
            at += mean / 2 + dice.below(mean);
        }
    }
}
