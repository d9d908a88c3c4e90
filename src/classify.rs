//! The classifier: what the rules, the service map and the requester say about one ticket.
//!
//! Pure and shared: one [`Classifier`] serves all threads through `&self`, each with a [`Scratch`] of its own. The
//! verdict itself is made by [`Findings::decide`].

use std::collections::BTreeSet;
use std::path::PathBuf;

use hashbrown::HashMap;
use serde::Serialize;

use crate::diagnostic::{Place, Problems};
use crate::pattern::check::{Trial, trials};
use crate::pattern::compile::{Matcher, Size};
use crate::pattern::matcher::Fate;
pub use crate::pattern::matcher::Scratch;
pub use crate::pattern::pack::PackSource;
use crate::pattern::pack::{self, Packs};
use crate::pattern::rule::{Rule, WrittenPhrase};
use crate::pattern::when::Key;
use crate::service::{Service, ServiceMap};
use crate::ticket::{Affects, TextField, Ticket};
use crate::verdict::{Evidence, Findings, Points, Policy, RuleId};

pub mod explain;
mod memo;
pub mod verdict_test;

pub use explain::Explanation;
use memo::Memo;

/// What a classifier is made from.
#[derive(Clone, Debug, Default)]
pub struct ClassifierOptions {
    /// The packs, in order; a later one replaces an earlier one of its name.
    pub packs: Vec<PackSource>,
    /// The files of the service map.
    pub services: Vec<PathBuf>,
    /// The company's e-mail domains; those below them are the company's, too.
    pub own_domains: Vec<String>,
    /// The organisations of requesters that are the company itself: names or ids.
    pub own_organizations: Vec<String>,
    /// How findings become a verdict.
    pub policy: Policy,
}

/// What there is to know of a rule or a service entry.
#[derive(Clone, Debug)]
pub struct RuleInfo {
    /// Its identity.
    pub id: RuleId,
    /// The full name: `en/checkout-failure`, `service/webshop`.
    pub name: String,
    /// The pack: `en`; `service` for the service map.
    pub pack: String,
    /// Where it is written.
    pub place: Place,
    /// The side it speaks for; `None` for rules that only swallow.
    pub affects: Option<Affects>,
    /// Its points: above 0 for `customer`, below for `internal`.
    pub weight: Points,
    /// For services: its name, then what depends on it, up to one that customers meet. Empty for rules.
    pub path: Vec<String>,
}

impl RuleInfo {
    /// The id in its pack, or the service's name.
    pub fn short_name(&self) -> &str {
        self.name.get(self.pack.len() + 1..).unwrap_or_default()
    }

    /// Evidence without a place in the text, as the service map gives it.
    fn evidence(&self, field: TextField) -> Evidence {
        Evidence { rule: self.id, field, start: 0, end: 0, weight: self.weight }
    }
}

/// Finds what speaks for and against the customer in a ticket.
#[derive(Debug)]
pub struct Classifier {
    packs: Packs,
    matcher: Matcher,
    services: ServiceMap,
    /// Rules in the order of the matcher, then services that speak.
    infos: Vec<RuleInfo>,
    by_id: HashMap<RuleId, usize>,
    /// By service: its info, where it speaks.
    service_infos: Vec<Option<usize>>,
    own_domains: Vec<String>,
    own_organizations: Vec<String>,
    policy: Policy,
    hash: String,
    memo: Memo,
}

impl Classifier {
    /// Loads packs and service maps and compiles them.
    ///
    /// # Errors
    /// When one of them holds an error; all problems of all files are reported.
    pub fn load(options: &ClassifierOptions) -> Result<Self, Problems> {
        let mut problems = Problems::new();
        let packs = pack::load(&options.packs, &mut problems);
        let services = match ServiceMap::load(&options.services) {
            Ok(services) => services,
            Err(found) => {
                problems.extend(found);
                ServiceMap::default()
            }
        };
        problems.into_result(())?;
        Self::new(packs, services, options)
    }

    /// A classifier of packs and services that are loaded already; takes domains and policy from the options.
    ///
    /// # Errors
    /// When the regexes are too many for one automaton.
    pub fn new(packs: Packs, services: ServiceMap, options: &ClassifierOptions) -> Result<Self, Problems> {
        let matcher = Matcher::new(&packs)?;
        let mut infos: Vec<RuleInfo> = packs.rules.iter().map(rule_info).collect();
        let mut service_infos = Vec::new();
        for service in services.services() {
            let info = service_info(service, &services);
            service_infos.push(info.is_some().then_some(infos.len()));
            infos.extend(info);
        }
        let by_id = infos.iter().enumerate().map(|(at, info)| (info.id, at)).collect();
        let hash = hash(&packs, &infos, &services);
        let own_domains = options.own_domains.iter().map(|d| domain_form(d)).filter(|d| !d.is_empty()).collect();
        let own_organizations = options.own_organizations.iter().map(|o| crate::text::folded_name(o)).collect();
        let policy = options.policy;
        let conditions = packs.rules.iter().flat_map(|rule| &rule.when);
        let asked: BTreeSet<Key> = conditions.map(|condition| condition.key).collect();
        let memo = Memo::new(asked.into_iter().collect());
        let parts = Self {
            packs,
            matcher,
            services,
            infos,
            by_id,
            service_infos,
            own_domains,
            own_organizations,
            policy,
            hash,
            memo,
        };
        Ok(parts)
    }

    /// What is found in one event of a ticket.
    pub fn classify(&self, ticket: &Ticket, scratch: &mut Scratch) -> Findings {
        self.with_requester(ticket, self.search(ticket, scratch))
    }

    /// The same, from memory where the words were seen before.
    pub fn recall(&self, ticket: &Ticket, scratch: &mut Scratch) -> Findings {
        let mut buffer = std::mem::take(&mut scratch.words);
        let found = self.memo.recall(ticket, &mut buffer, || self.search(ticket, scratch));
        scratch.words = buffer;
        self.with_requester(ticket, found)
    }

    fn with_requester(&self, ticket: &Ticket, found: Findings) -> Findings {
        Findings { declared: ticket.declared, requester_external: self.requester_external(ticket), ..found }
    }

    /// What the texts and the service map say.
    fn search(&self, ticket: &Ticket, scratch: &mut Scratch) -> Findings {
        let mut findings = Findings::default();
        scratch.begin(self.packs.rules.len());
        for field in TextField::ALL {
            let Some(text) = ticket.text(*field) else { continue };
            findings.fields |= Findings::bit(*field);
            self.matcher.scan(*field, text, ticket, scratch);
            self.collect(*field, scratch, &mut findings);
        }
        self.ask_services(ticket, &mut findings);
        findings
    }

    /// Adds the rules that speak in this field, each with its first match of those that weigh most there.
    fn collect(&self, field: TextField, scratch: &mut Scratch, findings: &mut Findings) {
        scratch.begin_field();
        for at in 0..scratch.matches.len() {
            let Some(found) = scratch.matches.get(at).copied().filter(|found| found.fate == Fate::Live) else {
                continue;
            };
            let Some(info) = self.infos.get(found.rule as usize).filter(|info| info.affects.is_some()) else {
                continue;
            };
            let weight = self.matcher.weighed(&found, info.weight);
            let earlier = scratch.spoke_at(found.rule, findings.evidence.len());
            if earlier.and_then(|at| findings.evidence.get(at)).is_some_and(|held| held.weight.abs() >= weight.abs()) {
                continue;
            }
            let span = scratch.folded.original(found.start as usize..found.end as usize);
            let evidence = Evidence { start: span.start, end: span.end, weight, ..info.evidence(field) };
            match earlier.and_then(|at| findings.evidence.get_mut(at)) {
                Some(held) => *held = evidence,
                None => findings.evidence.push(evidence),
            }
        }
    }

    /// Adds what the service map says about the ticket's service and configuration item.
    fn ask_services(&self, ticket: &Ticket, findings: &mut Findings) {
        let mut buffer = String::new();
        for field in [TextField::Service, TextField::Ci] {
            let service = ticket.text(field).and_then(|name| self.services.find(name, &mut buffer));
            let info = service.and_then(|at| self.service_infos.get(at).copied().flatten());
            let Some(info) = info.and_then(|at| self.infos.get(at)) else { continue };
            findings.evidence.push(info.evidence(field));
        }
    }

    /// Whether the requester is from outside: what the profile says, unless domain or organisation are our own.
    fn requester_external(&self, ticket: &Ticket) -> Option<bool> {
        let own_domain = ticket.requester_email.as_deref().is_some_and(|email| self.is_own_address(email));
        let own_organization = || ticket.organization.as_deref().is_some_and(|name| self.is_own_organization(name));
        if own_domain || own_organization() { Some(false) } else { ticket.requester_external }
    }

    fn is_own_address(&self, email: &str) -> bool {
        let Some((_, domain)) = email.rsplit_once('@') else { return false };
        let domain = domain_form(domain);
        let is_below = |own: &str| domain.strip_suffix(own).is_some_and(|head| head.is_empty() || head.ends_with('.'));
        self.own_domains.iter().any(|own| is_below(own))
    }

    fn is_own_organization(&self, name: &str) -> bool {
        !self.own_organizations.is_empty() && self.own_organizations.contains(&crate::text::folded_name(name))
    }

    /// How findings become a verdict.
    pub fn policy(&self) -> Policy {
        self.policy
    }

    /// The rule or service entry of an identity.
    pub fn rule(&self, id: RuleId) -> Option<&RuleInfo> {
        self.by_id.get(&id).and_then(|at| self.infos.get(*at))
    }

    /// Every rule by name, then every service that speaks, in the order of the files.
    pub fn rules(&self) -> impl Iterator<Item = &RuleInfo> {
        self.infos.iter()
    }

    /// A hash of all rules and services, in hex: the same for the same rules, in whatever files and order.
    pub fn hash(&self) -> &str {
        &self.hash
    }

    /// Buffers for one thread.
    pub fn scratch(&self) -> Scratch {
        Scratch::new()
    }

    /// The examples and counter-examples of all rules, each tried.
    pub fn trials(&self) -> Vec<Trial<'_>> {
        trials(&self.packs.rules, &self.matcher)
    }

    /// The first example that does not make its rule count, or counter-example that does.
    pub fn failing_example(&self) -> Option<String> {
        let failed = |trial: &Trial<'_>| trial.failure.as_ref().map(|why| format!("{}: {why}", trial.text.place));
        self.trials().iter().find_map(failed)
    }

    /// How large the compiled rules are.
    pub fn size(&self) -> Size {
        self.matcher.size()
    }
}

/// An e-mail domain as it compares: lower case, without what is around it.
fn domain_form(domain: &str) -> String {
    domain.trim().trim_start_matches(['@', '.', '*']).trim_end_matches(['>', '.']).to_lowercase()
}

fn rule_info(rule: &Rule) -> RuleInfo {
    let name = rule.name();
    RuleInfo {
        id: RuleId::of(&name),
        name,
        pack: rule.pack.clone(),
        place: rule.place.clone(),
        affects: rule.affects,
        weight: rule.points(),
        path: Vec::new(),
    }
}

fn service_info(service: &Service, map: &ServiceMap) -> Option<RuleInfo> {
    let voice = service.voice.as_ref()?;
    let name = format!("service/{}", service.name);
    Some(RuleInfo {
        id: RuleId::of(&name),
        name,
        pack: "service".to_owned(),
        place: service.place.clone(),
        affects: Some(if voice.weight > 0 { Affects::Customer } else { Affects::Internal }),
        weight: voice.weight,
        path: map.names(&voice.path),
    })
}

/// Hashes all that decides, and nothing else: not places, order of files, or examples.
fn hash(packs: &Packs, infos: &[RuleInfo], services: &ServiceMap) -> String {
    let mut lines: Vec<String> = packs.rules.iter().map(rule_line).collect();
    lines.extend(packs.lists.iter().map(|list| format!("{list:?}")));
    lines.extend(packs.zones.iter().map(|zone| {
        let mut marks: Vec<&str> = zone.marks.iter().map(|mark| mark.value.as_str()).collect();
        marks.sort_unstable();
        format!("{:?}", (zone.name(), zone.percent, written(&zone.starts), written(&zone.ends), marks, zone.lines))
    }));
    let service_infos = infos.iter().skip(packs.rules.len());
    lines.extend(service_infos.map(|info| format!("{:?}", (&info.name, info.weight, &info.path))));
    lines.extend(services.services().iter().map(|service| {
        let mut aliases = service.aliases.clone();
        aliases.sort();
        format!("{:?}", (&service.name, aliases, service.customer_facing))
    }));
    lines.sort();
    format!("{:032x}", xxhash_rust::xxh3::xxh3_128(lines.join("\n").as_bytes()))
}

/// Phrases as written, in an order that does not depend on that of the file.
fn written(phrases: &[WrittenPhrase]) -> Vec<&str> {
    let mut texts: Vec<&str> = phrases.iter().map(|phrase| phrase.text.value.as_str()).collect();
    texts.sort_unstable();
    texts
}

fn rule_line(rule: &Rule) -> String {
    let mut regexes: Vec<&str> = rule.regexes.iter().map(|w| w.text.value.as_str()).collect();
    regexes.sort_unstable();
    let when: Vec<_> = rule.when.iter().map(|condition| (condition.key, &condition.values)).collect();
    let looks_for = (written(&rule.phrases), regexes, written(&rule.unless), when, &rule.needs, &rule.replaces);
    format!("{:?}", (rule.name(), rule.affects, rule.weight, rule.fields, looks_for))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::ticket::State;
    use crate::verdict::{Basis, Certainty};

    fn write(folder: &tempfile::TempDir, path: &str, text: &str) -> PathBuf {
        let path = folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    }

    fn rule(id: &str, affects: &str, weight: f64, phrase: &str) -> String {
        format!("[[rule]]\nid = '{id}'\naffects = '{affects}'\nweight = {weight}\nphrases = ['{phrase}']\n")
    }

    fn load(folder: &tempfile::TempDir) -> Classifier {
        let options = ClassifierOptions {
            packs: vec![PackSource::Folder(folder.path().join("packs"))],
            services: vec![folder.path().join("services.toml")],
            own_domains: vec!["Corp.example".to_owned()],
            own_organizations: vec!["Corp AG".to_owned()],
            policy: Policy::default(),
        };
        Classifier::load(&options).unwrap()
    }

    fn company() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let rules = rule("order", "customer", 3.25, "order[s] lost") + &rule("laptop", "internal", 2.0, "laptop");
        write(&folder, "packs/en/a.toml", &rules);
        write(&folder, "packs/de/a.toml", &rule("bestellung", "customer", 4.0, "bestellung verloren"));
        let services = "service = [{ name = 'Shop', customer_facing = true, depends_on = ['db'] }, { name = 'db' }]";
        write(&folder, "services.toml", services);
        folder
    }

    #[test]
    fn each_rule_counts_once_and_services_add_up() {
        let classifier = load(&company());
        let ticket = Ticket {
            summary: Some("Orders lost on my laptop: order lost".to_owned()),
            description: Some("orders lost, Bestellung verloren".to_owned()),
            ci: Some("DB".into()),
            service: Some("shop".into()),
            ..Ticket::default()
        };
        let findings = classifier.classify(&ticket, &mut classifier.scratch());
        let evidence: Vec<_> = findings
            .counting()
            .map(|e| (classifier.rule(e.rule).unwrap().name.as_str(), e.field, e.start, e.end, e.weight))
            .collect();
        let expected = [
            ("en/order", TextField::Summary, 0, 11, 325),
            ("en/laptop", TextField::Summary, 18, 24, -200),
            ("de/bestellung", TextField::Description, 13, 32, 400),
            ("service/Shop", TextField::Service, 0, 0, 400),
            ("service/db", TextField::Ci, 0, 0, 300),
        ];
        assert_eq!(evidence, expected);
        let verdict = findings.decide(classifier.policy());
        assert_eq!((verdict.score, verdict.basis, verdict.certainty), (1225, Basis::Pattern, Certainty::Clear));
        assert_eq!(findings.fields, 0b11_0011);
    }

    #[test]
    fn what_is_recalled_is_what_would_be_found() {
        let folder = company();
        let open = rule("open", "customer", 2.0, "laptop") + "when = { state = 'open' }\n";
        write(&folder, "packs/en/b.toml", &open);
        let classifier = load(&folder);
        let texts = [None, Some(""), Some("order lost"), Some("laptop"), Some("db")];
        let mut tickets = Vec::new();
        for (summary, description) in texts.iter().flat_map(|text| texts.map(|other| (*text, other))) {
            for ((state, service), ci) in
                [State::Open, State::Closed].into_iter().zip(texts).flat_map(|some| texts.map(|ci| (some, ci)))
            {
                for (declared, email) in [(None, "a@corp.example"), (Some(Affects::Internal), "a@b.example")] {
                    tickets.push(Ticket {
                        summary: summary.map(str::to_owned),
                        description: description.map(str::to_owned),
                        state: Some(state),
                        service: service.map(Into::into),
                        ci: ci.map(Into::into),
                        declared,
                        requester_email: Some(email.to_owned()),
                        ..Ticket::default()
                    });
                }
            }
        }
        let mut scratch = classifier.scratch();
        for ticket in tickets.iter().chain(tickets.iter().rev()) {
            let found = classifier.classify(ticket, &mut scratch);
            assert_eq!(classifier.recall(ticket, &mut scratch), found, "{ticket:?}");
        }
    }

    #[test]
    fn own_domains_and_organizations_are_inside() {
        let classifier = load(&company());
        let external = |email: &str, organization: Option<&str>, claimed| {
            let ticket = Ticket {
                requester_email: Some(email.to_owned()),
                organization: organization.map(str::to_owned),
                requester_external: claimed,
                ..Ticket::default()
            };
            classifier.classify(&ticket, &mut classifier.scratch()).requester_external
        };
        for (email, organization, claimed, expected) in [
            ("a@corp.example", None, Some(true), Some(false)),
            ("A <a@Mail.CORP.example>", None, None, Some(false)),
            ("a@notcorp.example", None, Some(true), Some(true)),
            ("a@shop.example", Some("corp ag"), Some(true), Some(false)),
            ("a@shop.example", Some("other"), None, None),
        ] {
            assert_eq!(external(email, organization, claimed), expected, "{email} {organization:?}");
        }
    }

    #[test]
    fn the_hash_follows_rules_and_not_their_order() {
        let folder = company();
        let before = load(&folder).hash().to_owned();
        let turned = rule("laptop", "internal", 2.0, "laptop")
            + "# a comment\n"
            + &rule("order", "customer", 3.25, "order[s] lost");
        write(&folder, "packs/en/a.toml", &turned);
        assert_eq!(load(&folder).hash(), before);
        write(&folder, "packs/en/a.toml", &turned.replace("3.25", "3.26"));
        assert_ne!(load(&folder).hash(), before);
    }

    #[test]
    fn a_pack_replaces_an_earlier_one_of_its_name() {
        let folder = company();
        let own = write(&folder, "own/en/b.toml", &rule("mine", "customer", 1.0, "mine"));
        let packs = vec![folder.path().join("packs"), own.parent().unwrap().to_owned()];
        let packs = packs.into_iter().map(PackSource::Folder).collect();
        let classifier = Classifier::load(&ClassifierOptions { packs, ..ClassifierOptions::default() }).unwrap();
        let names: Vec<_> = classifier.rules().map(|rule| rule.name.as_str()).collect();
        assert_eq!(names, ["de/bestellung", "en/mine"]);
    }

    #[test]
    fn what_did_not_count_is_explained() {
        let folder = company();
        let more = rule("lost", "internal", 1.0, "lost") + "unless = ['found']\n";
        write(&folder, "packs/en/b.toml", &more);
        let classifier = load(&folder);
        let ticket = Ticket {
            summary: Some("order lost".to_owned()),
            description: Some("lost and found, order lost".to_owned()),
            ..Ticket::default()
        };
        let explanation = classifier.explain(&ticket);
        let fates: Vec<_> = explanation
            .fields
            .iter()
            .flat_map(|field| &field.matches)
            .map(|m| (m.rule.as_str(), m.fate, m.swallowed_by.join(" "), m.cancelled_by))
            .collect();
        use explain::MatchFate::{Cancelled, CountedBefore, Counts, Swallowed};
        let expected = [
            ("en/order", Counts, String::new(), None),
            ("en/lost", Swallowed, "en/order".to_owned(), None),
            ("en/lost", Cancelled, String::new(), Some((9, 14))),
            ("en/order", CountedBefore, String::new(), None),
            ("en/lost", Cancelled, String::new(), Some((9, 14))),
        ];
        assert_eq!(fates, expected);
        let json = serde_json::to_value(&explanation).unwrap();
        assert_eq!(json["fields"][0]["matches"][1]["fate"], "swallowed");
    }
}
