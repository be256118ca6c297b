//! Timers set by hand that cannot keep the contract: refused with the sum, and with what to write instead.

use relais_config::Pace;

use crate::{errors, messages, parse, warnings};

/// A service on two sites with these lines.
fn service(lines: &str) -> String {
    format!(
        "[sites]\ndijon = 1\nthory = 2\n[service.api]\nhosts = [\"api.test\"]\n{lines}\n[service.api.backends]\n\
         dijon = [\"10.0.0.1:80\"]\nthory = [\"10.0.1.1:80\"]\n"
    )
}

fn check(keys: &str) -> String {
    service(&format!("health = {{ path = \"/\", {keys} }}"))
}

/// Everything that is refused, as people see it.
#[test]
fn every_refusal_shows_its_sum_and_the_way_out() {
    let told: Vec<String> = [
        check("interval = \"2s\", timeout = \"1s\""),
        check("interval = \"1s\", timeout = \"1s\""),
        check("interval = \"30s\""),
        check("interval = \"900ms\", fall = 3"),
        check("timeout = \"900ms\""),
        check("fall = 40"),
        check("interval = \"600ms\", jitter = 0.5"),
        check("interval = \"50s\", timeout = \"20s\", fall = 10"),
        service("failover_within = \"300ms\"\nhealth = { type = \"tcp\", interval = \"300ms\" }"),
        service("failover_within = \"60s\"\n[service.api.health]\npath = \"/\"\ninterval = \"1h\""),
    ]
    .iter()
    .map(|text| errors(text))
    .collect();
    snapshot!(told.join("\n"));
}

#[test]
fn a_refusal_names_file_line_column_and_key() {
    let text = service("[service.api.health]\npath = \"/\"\ninterval = \"2s\"\ntimeout = \"1s\"");
    let errors = parse(&text).unwrap_err();
    let [problem] = errors.problems.as_slice() else { panic!("{errors}") };
    assert_eq!((problem.line, problem.column), (8, 12), "{errors}");
    assert_eq!(&text[problem.span.clone()], "\"2s\"");
    assert!(errors.to_string().contains("/etc/relais/proxy.toml:8:12"), "{errors}");
}

/// What the help says to write must be accepted.
#[test]
fn every_way_out_leads_out() {
    let mut ways = 0;
    for keys in [
        "interval = \"2s\", timeout = \"1s\"",
        "interval = \"1s\", timeout = \"1s\"",
        "interval = \"900ms\", fall = 3",
        "timeout = \"900ms\"",
        "fall = 40",
        "interval = \"600ms\", jitter = 0.5",
        "timeout = \"2s\", fall = 9, jitter = 0.3",
    ] {
        let text = check(keys);
        let errors = parse(&text).unwrap_err();
        let problem = &errors.problems[0];
        let help = problem.help.as_deref().unwrap();
        for way in help.split('`').skip(1).step_by(2).filter(|way| way.contains(" = ")) {
            let (key, value) = way.split_once(" = ").unwrap();
            let mended = if key == "failover_within" {
                text.replace("health =", &format!("{way}\nhealth ="))
            } else {
                let start = text.find(&format!("{key} = ")).unwrap();
                let end = start + text[start..].find([',', '}']).unwrap();
                format!("{}{key} = {value} {}", &text[..start], &text[end..])
            };
            if let Err(errors) = parse(&mended) {
                panic!("`{way}` was offered for {keys}:\n{errors}");
            }
            ways += 1;
        }
    }
    assert!(ways >= 10, "{ways}");
}

/// A long contract may have long timers, and what is left open makes room.
#[test]
fn what_fits_is_not_refused() {
    for text in [
        check("interval = \"500ms\""),
        check("interval = \"100ms\", timeout = \"300ms\""),
        check("timeout = \"400ms\""),
        check("fall = 9"),
        service("failover_within = \"60s\"\nhealth = { path = \"/\", interval = \"30s\", timeout = \"10s\" }"),
        service("health = { type = \"off\" }"),
        service("timeout = { connect = \"1s\" }"),
    ] {
        assert_eq!(warnings(&text), "", "{text}");
    }
}

#[test]
fn the_contract_of_the_edge_counts_where_a_service_has_none() {
    let text = check("interval = \"2s\"");
    assert_eq!(messages(&text).len(), 1);
    assert_eq!(warnings(&("[edge]\nfailover_within = \"5s\"\n".to_owned() + &text)), "");
}

#[test]
fn what_works_against_the_contract_is_warned_of() {
    let told: Vec<String> = [
        check("timeout = \"350ms\", fall = 3"),
        service("timeout = { request = \"500ms\" }"),
        service("timeout = { connect = \"3s\" }"),
        service("health = \"off\"\npassive_fall = 0"),
    ]
    .iter()
    .map(|text| warnings(text))
    .collect();
    snapshot!(told.join("\n"));
}

/// The file's check and the solver speak of the same numbers.
#[test]
fn the_refused_sum_is_the_solvers_own() {
    let text = check("interval = \"2s\"");
    let errors = parse(&text).unwrap_err();
    let longer = parse(&text.replace("health =", "failover_within = \"60s\"\nhealth =")).unwrap().config;
    let relais_config::Action::Forward(forward) = &longer.services[0].action else { panic!("it forwards") };
    let pace = Pace::of(std::time::Duration::from_secs(1), &forward.health);
    assert_eq!(errors.problems[0].message, format!("{} is more than failover_within = 1 s", pace.sum()));
}
