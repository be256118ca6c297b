//! Every key of the language: each is really read, and each is in the reference file.

use relais_config::keys;

use crate::{messages, parse};

/// The header of a table of the language, its free names filled in.
fn header(place: &str) -> String {
    let name = place.replace("NAME", "x").replace("SITE", "default");
    match place {
        "" => String::new(),
        _ if place.ends_with("SITE") => format!("[[{name}]]\n"),
        _ => format!("[{name}]\n"),
    }
}

/// No key takes a date: a key that is listed but not read would be taken in silence.
#[test]
fn every_key_refuses_a_value_of_the_wrong_type() {
    let mut seen = 0;
    for (place, key) in keys() {
        let text = format!("{}{key} = 1979-05-27\n", header(place));
        let errors = parse(&text).expect_err(&text);
        let at_value = errors.problems.iter().filter(|problem| &text[problem.span.clone()] == "1979-05-27");
        let said: Vec<&str> = at_value.map(|problem| problem.message.as_str()).collect();
        let wanted = |said: &&str| said.contains(&format!("{key}` must be")) && said.ends_with("not a date");
        assert!(said.iter().any(wanted), "`{key}` of `{place}`: {said:?}\n{errors}");
        assert!(!errors.to_string().contains("unknown key"), "{errors}");
        seen += 1;
    }
    assert!(seen > 100, "{seen}");
}

#[test]
fn every_table_refuses_a_key_it_does_not_know() {
    let places: std::collections::BTreeSet<&str> = keys().map(|(place, _)| place).collect();
    for place in places {
        let text = format!("{}zzzzzz = 1\n", header(place));
        let said = messages(&text);
        assert!(said.iter().any(|said| said.contains("unknown key `zzzzzz`")), "{place}: {said:?}");
    }
}

#[test]
fn a_slip_in_any_key_is_answered_with_the_key() {
    for (place, key) in keys().filter(|(_, key)| key.len() > 5) {
        // The last two letters change places.
        let mut slip: Vec<char> = key.chars().collect();
        let last = slip.len() - 1;
        slip.swap(last - 1, last);
        let slip: String = slip.into_iter().collect();
        if slip == key {
            continue;
        }
        let text = format!("{}{slip} = 1\n", header(place));
        let errors = parse(&text).expect_err(&text);
        let help = format!("did you mean `{key}`?");
        assert!(errors.problems.iter().any(|problem| problem.help.as_deref() == Some(&help)), "{errors}");
    }
}
