//! Verdict tests: tickets in files beside the packs, with the tag that each must get.
//!
//! They lie in the folder `tests` of a pack and are judged with all packs that are loaded. Two or three tickets of one
//! `pair` differ by one small change of wording that turns the tag. A ticket whose tag is right but which the rules
//! cannot tell says so with `known_miss`; the day they can, the test asks for the mark to be taken away.

use hashbrown::HashMap;

use super::{Classifier, RuleInfo, Scratch};
use crate::diagnostic::{Place, Problem, Problems};
use crate::document::{self, Table, Text};
use crate::pattern::pack::PackFiles;
use crate::pattern::rule::unknown_value;
use crate::ticket::{Affects, Kind, State, Ticket};
use crate::verdict::{Basis, Certainty, Evidence, Findings, Verdict};

/// A ticket and the verdict that it must get.
#[derive(Clone, Debug)]
pub struct VerdictTest {
    /// The pack beside which it lies.
    pub pack: String,
    /// Its name, unique in its file, and where it stands.
    pub name: Text,
    /// The minimal pair that it belongs to.
    pub pair: Option<String>,
    /// The ticket.
    pub ticket: Ticket,
    /// The tag.
    pub affects: Affects,
    /// What must decide, if that matters.
    pub basis: Option<Basis>,
    /// How sure it must be, if that matters.
    pub certainty: Option<Certainty>,
    /// The strongest rule of the side that wins, if that matters.
    pub rule: Option<String>,
    /// Why the rules cannot tell it.
    pub known_miss: Option<String>,
}

/// What became of a verdict test.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The verdict is as it must be.
    Passed,
    /// The verdict is wrong, as its author knows.
    KnownMiss,
    /// The verdict is wrong, or it is right and its author thinks that it is not: what was wrong.
    Failed(String),
}

/// Reads the verdict tests of packs.
pub fn read(packs: &[PackFiles], problems: &mut Problems) -> Vec<VerdictTest> {
    let mut tests = Vec::new();
    for (pack, path, text) in packs.iter().flat_map(|p| p.tests.iter().map(move |(path, text)| (&p.name, path, text))) {
        let table = document::parse(path, text, problems);
        let mut names: HashMap<String, Place> = HashMap::new();
        for ticket in table.tables("ticket", problems) {
            let Some(test) = read_test(pack, ticket, problems) else { continue };
            if let Some(first) = names.insert(test.name.value.clone(), test.name.place.clone()) {
                let title = format!("there is a ticket `{}` in this file already", test.name.value);
                problems.push(Problem::error("duplicate-test", &test.name.place, title).other(&first, "here"));
            }
            tests.push(test);
        }
        table.finish(problems);
    }
    tests
}

/// Reads one test; one without name or tag is reported and left out.
fn read_test(pack: &str, table: &Table, problems: &mut Problems) -> Option<VerdictTest> {
    let value = |key: &'static str, problems: &mut Problems| table.text(key, problems).map(|text| text.value);
    let name = table.required_text("name", problems);
    let affects = one_of(table, "affects", Affects::NAMES, Affects::from_name, problems);
    if table.get("affects").is_none() {
        table.required_text("affects", problems);
    }
    let short = |key: &'static str, problems: &mut Problems| table.text(key, problems).map(|text| text.value.into());
    let ticket = Ticket {
        key: name.as_ref().map(|name| name.value.as_str().into()).unwrap_or_default(),
        kind: one_of(table, "kind", Kind::NAMES, Kind::from_name, problems),
        state: one_of(table, "state", State::NAMES, State::from_name, problems),
        summary: value("summary", problems),
        description: value("description", problems),
        requester: value("requester", problems),
        requester_email: value("requester_email", problems),
        service: short("service", problems),
        ci: short("ci", problems),
        category: short("category", problems),
        group: short("group", problems),
        priority: short("priority", problems),
        ..Ticket::default()
    };
    let basis = one_of(table, "basis", Basis::NAMES, Basis::from_name, problems);
    let certainty = one_of(table, "certainty", Certainty::NAMES, Certainty::from_name, problems);
    let (pair, rule) = (value("pair", problems), value("rule", problems));
    let known_miss = value("known_miss", problems);
    table.finish(problems);
    let (name, affects) = (name?, affects?);
    Some(VerdictTest { pack: pack.to_owned(), name, pair, ticket, affects, basis, certainty, rule, known_miss })
}

/// A value of a closed set.
fn one_of<T>(
    table: &Table,
    key: &'static str,
    names: &[&'static str],
    from_name: impl Fn(&str) -> Option<T>,
    problems: &mut Problems,
) -> Option<T> {
    let text = table.text(key, problems)?;
    let value = from_name(&text.value);
    if value.is_none() {
        problems.push(unknown_value(key, &text, names.iter().copied()));
    }
    value
}

impl Classifier {
    /// Runs one verdict test.
    pub fn try_verdict(&self, test: &VerdictTest, scratch: &mut Scratch) -> Outcome {
        let findings = self.classify(&test.ticket, scratch);
        let verdict = findings.decide(self.policy());
        let wrong = self.differs(test, &findings, verdict);
        match (wrong, &test.known_miss) {
            (None, None) => Outcome::Passed,
            (Some(_), Some(_)) => Outcome::KnownMiss,
            (Some(wrong), None) => Outcome::Failed(format!("{wrong}; {}", self.evidence_line(&findings))),
            (None, Some(_)) => Outcome::Failed("the rules tell it now: take `known_miss` away".to_owned()),
        }
    }

    fn differs(&self, test: &VerdictTest, findings: &Findings, verdict: Verdict) -> Option<String> {
        let wanted = |what: &str, got: &str| Some(format!("{what} wanted, but it is {got}"));
        if verdict.affects != test.affects {
            return wanted(test.affects.as_str(), verdict.affects.as_str());
        }
        if let Some(basis) = test.basis.filter(|basis| *basis != verdict.basis) {
            return wanted(&format!("basis {basis}"), verdict.basis.as_str());
        }
        if let Some(certainty) = test.certainty.filter(|certainty| *certainty != verdict.certainty) {
            return wanted(&format!("certainty {certainty}"), verdict.certainty.as_str());
        }
        let deciding = self.deciding_rule(findings, verdict.affects).map_or("none", |rule| rule.name.as_str());
        let rule = test.rule.as_deref().filter(|rule| *rule != deciding)?;
        wanted(&format!("deciding rule {rule}"), deciding)
    }

    /// The strongest rule or service entry that speaks for a tag; of several, the first by name.
    pub fn deciding_rule(&self, findings: &Findings, affects: Affects) -> Option<&RuleInfo> {
        let speaks = |e: &&Evidence| (e.weight > 0) == (affects == Affects::Customer);
        let strength = |e: &Evidence| Some((std::cmp::Reverse(e.weight.abs()), self.rule(e.rule)?));
        let all = findings.counting().filter(speaks).filter_map(strength);
        all.min_by(|a, b| (a.0, &a.1.name).cmp(&(b.0, &b.1.name))).map(|(_, rule)| rule)
    }

    /// `score +3.00: en/order +5.00, en/laptop -2.00`.
    fn evidence_line(&self, findings: &Findings) -> String {
        let score = super::explain::weight(findings.decide(self.policy()).score);
        let one = |e: &Evidence| Some(format!("{} {:+.2}", self.rule(e.rule)?.name, super::explain::weight(e.weight)));
        let all: Vec<String> = findings.counting().filter_map(one).collect();
        format!("score {score:+.2}: {}", if all.is_empty() { "no evidence".to_owned() } else { all.join(", ") })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::classify::ClassifierOptions;
    use crate::pattern::pack;
    use crate::service::ServiceMap;

    const RULES: &str = "[[rule]]\nid = 'order'\naffects = 'customer'\nweight = 5\nphrases = ['order']\n\
                         [[rule]]\nid = 'lost'\naffects = 'customer'\nweight = 5\nphrases = ['lost']\n\
                         [[rule]]\nid = 'laptop'\naffects = 'internal'\nweight = 1\nphrases = ['laptop']\n";

    fn files(tests: &str) -> Vec<PackFiles> {
        let file = |text: &str| vec![("own.toml".to_owned(), text.to_owned())];
        vec![PackFiles { name: "own".to_owned(), files: file(RULES), tests: file(tests) }]
    }

    fn outcomes(tests: &str) -> Vec<Outcome> {
        let mut problems = Problems::new();
        let files = files(tests);
        let packs = pack::read(&files, &mut problems);
        let tests = read(&files, &mut problems);
        assert!(problems.is_empty(), "{problems}");
        let classifier = Classifier::new(packs, ServiceMap::default(), &ClassifierOptions::default()).unwrap();
        tests.iter().map(|test| classifier.try_verdict(test, &mut Scratch::new())).collect()
    }

    fn ticket(rest: &str) -> String {
        format!("[[ticket]]\nname = 'a'\nsummary = 'order lost on my laptop'\n{rest}\n")
    }

    #[test]
    fn a_verdict_must_be_as_said() {
        let failed = |why: &str| {
            let evidence = "score +9.00: own/order +5.00, own/lost +5.00, own/laptop -1.00";
            Outcome::Failed(format!("{why}; {evidence}"))
        };
        for (rest, expected) in [
            ("affects = 'customer'", Outcome::Passed),
            ("affects = 'customer'\nbasis = 'pattern'\ncertainty = 'clear'\nrule = 'own/lost'", Outcome::Passed),
            ("affects = 'internal'", failed("internal wanted, but it is customer")),
            ("affects = 'internal'\nknown_miss = 'hard'", Outcome::KnownMiss),
            ("affects = 'customer'\nbasis = 'service'", failed("basis service wanted, but it is pattern")),
            ("affects = 'customer'\ncertainty = 'narrow'", failed("certainty narrow wanted, but it is clear")),
            ("affects = 'customer'\nrule = 'own/order'", failed("deciding rule own/order wanted, but it is own/lost")),
        ] {
            assert_eq!(outcomes(&ticket(rest)), [expected], "{rest}");
        }
        let told = outcomes(&ticket("affects = 'customer'\nknown_miss = 'hard'"));
        assert!(matches!(&*told, [Outcome::Failed(why)] if why.contains("take `known_miss` away")), "{told:?}");
    }

    #[test]
    fn what_is_wrong_with_a_test_file_is_said() {
        let mut problems = Problems::new();
        let text = ticket("affects = 'custmer'") + &ticket("affects = 'internal'\nkind = 'incidnt'") + &ticket("");
        let text = text + &ticket("affects = 'internal'") + "[[tickets]]\n";
        let tests = read(&files(&text), &mut problems);
        assert_eq!(tests.len(), 2);
        let said = problems.to_string();
        for part in [
            "`custmer` is no value of `affects`",
            "did you mean `incident`?",
            "`affects` is missing",
            "there is a ticket `a` in this file already",
            "unknown key `tickets`",
        ] {
            assert!(said.contains(part), "{part}\n{said}");
        }
    }
}
