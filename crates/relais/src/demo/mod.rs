//! `relais demo`: an edge on local ports, three sites of small backends, visitors, and a story with a cut.
//!
//! Everything runs in this one process, as an ordinary user, without other packages: the edge on its own threads as
//! always, sites and visitors on one thread each. Uses the embedding API like any other program.

mod gate;
mod ledger;
mod load;
mod picture;
mod setting;
mod site;
mod story;
mod tally;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;

use relais::core::stats::Counter;

use crate::cli::{EXIT_FAILED, Failure, Screen, Signals, say};
use picture::Second;
use setting::Setting;
use story::{ACTS, Act};
use tally::Totals;

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Tell the story once, print a verdict, and exit 0 or 1
    #[arg(long)]
    once: bool,
    /// HTTPS port; 0: any [default: 8443 with HTTP on 8080, or any that are free]
    #[arg(long, value_name = "N")]
    port: Option<u16>,
}

pub(crate) fn demo(options: &Options) -> Result<ExitCode, Failure> {
    relais::limits::raise_open_files();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(EXIT_FAILED, format!("no runtime: {error}")))?;
    let setting = Setting::build(options.port).map_err(|error| Failure::new(EXIT_FAILED, error))?;
    say(setting.introduction());
    let mut teller = Teller { setting: &setting, begun: Instant::now(), sum: Totals::default(), missing: Vec::new() };
    let code = runtime.block_on(async {
        tokio::select! {
            code = teller.tell(options.once) => code,
            () = told_to_end() => ExitCode::SUCCESS,
        }
    });
    if !options.once {
        say(teller.verdict().text);
    }
    Ok(code)
}

/// Any signal that asks to end: the scratch directory is to be taken down with the rest.
async fn told_to_end() {
    match Signals::new() {
        Ok(mut signals) => {
            signals.next().await;
        }
        // Then the signal ends the process the hard way.
        Err(_) => std::future::pending().await,
    }
}

/// Tells the story and keeps the books.
struct Teller<'a> {
    setting: &'a Setting,
    begun: Instant,
    sum: Totals,
    missing: Vec<String>,
}

/// Longest wait for sites to be back before the story is told again: a site that flaps is held back longer each time.
const BETWEEN: Duration = Duration::from_secs(90);

/// What an act may take beyond its time until those who should answer do.
const MERCY: Duration = Duration::from_secs(10);

impl Teller<'_> {
    async fn tell(&mut self, once: bool) -> ExitCode {
        loop {
            for act in &ACTS {
                self.play(act).await;
            }
            if once {
                let verdict = self.verdict();
                say(&verdict.text);
                return if verdict.good { ExitCode::SUCCESS } else { ExitCode::from(EXIT_FAILED) };
            }
            self.recover().await;
        }
    }

    async fn play(&mut self, act: &'static Act) {
        if let Some((site, condition)) = act.change {
            self.setting.change(site, condition);
        }
        say(format_args!("\n> {}", act.words));
        let mut screen = Screen::default();
        let mut last = Totals::default();
        let begun = Instant::now();
        let told = |last: &Totals| act.serving.iter().all(|site| last.sites.contains_key(*site));
        // A busy machine may need longer for a site to be trusted again.
        while begun.elapsed() < act.lasts || (!told(&last) && begun.elapsed() < act.lasts + MERCY) {
            last = self.second(&mut screen).await;
        }
        for site in act.serving.iter().filter(|site| !last.sites.contains_key(**site)) {
            self.missing.push(format!("«{}»: {site} answered nobody at the end of it", act.words));
        }
        screen.keep();
    }

    /// Until every site is up again, so that the next telling begins as the first.
    async fn recover(&mut self) {
        let words = "waiting until every site is trusted again (one that flaps is held back longer each time)";
        say(format_args!("\n> {words}"));
        let mut screen = Screen::default();
        let begun = Instant::now();
        while begun.elapsed() < BETWEEN && !self.setting.all_up() {
            self.second(&mut screen).await;
        }
        screen.keep();
    }

    /// Lets a second pass and shows it.
    async fn second(&mut self, screen: &mut Screen) -> Totals {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let last = self.setting.tally.take();
        self.sum.add(&last);
        // An edge that does not answer shows in the counts.
        if let Ok(status) = self.setting.edge.status() {
            let second = Second { at: self.begun.elapsed(), report: &status.report, last: &last, sum: &self.sum };
            if Screen::is_live() {
                screen.show(&picture::draw(&second));
            } else {
                say(picture::line(&second));
            }
        }
        last
    }

    fn verdict(&mut self) -> picture::Verdict {
        self.sum.add(&self.setting.tally.take());
        let snapshot = self.setting.edge.snapshot();
        let retries = snapshot.pools.iter().flat_map(|pool| &pool.stats.retries).map(Counter::get).sum();
        picture::judge(&self.sum, &self.setting.ledger, retries, &self.missing)
    }
}
