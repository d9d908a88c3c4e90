//! The service map: which services the customer meets, and what they depend on.
//!
//! A ticket on something that a customer-facing service depends on, over any number of hops, reaches the customer. The
//! shortest way counts (then the heavier service, then the name); its weight falls by a quarter with each hop. Something
//! that says `customer_facing = false` and that no customer-facing service depends on speaks for `internal`.

use std::collections::VecDeque;
use std::fs;
use std::path::PathBuf;

use hashbrown::HashMap;

use crate::diagnostic::{Place, Problem, Problems, closest};
use crate::document::{self, Table, Text};
use crate::pattern::rule::points;
use crate::text::{fold_name, folded_name};
use crate::verdict::Points;

/// The weight of a customer-facing service that names none, in hundredths.
pub const DEFAULT_WEIGHT: Points = 400;

/// The weight of a service that says it is not customer-facing and names none, in hundredths.
pub const DEFAULT_INTERNAL_WEIGHT: Points = 200;

/// What is left of the weight after each hop: a failure further back is likelier to be caught on its way.
const LEFT_PER_HOP: f64 = 0.75;

/// One entry of the map.
#[derive(Clone, Debug)]
pub struct Service {
    /// The name as written.
    pub name: String,
    /// Other names under which tickets know it.
    pub aliases: Vec<String>,
    /// Whether customers meet it; `None` where the map does not say.
    pub customer_facing: Option<bool>,
    /// Its own weight, in hundredths.
    pub weight: Points,
    /// Where it stands.
    pub place: Place,
    /// What it depends on, as indices into [`ServiceMap::services`].
    pub depends_on: Vec<usize>,
    /// What a ticket on it says; `None` where the map has no opinion.
    pub voice: Option<Voice>,
}

/// What a ticket on a service says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Voice {
    /// Above 0 for the customer, below for internal, in hundredths.
    pub weight: Points,
    /// The service itself, and then what depends on it, up to one that customers meet; indices.
    pub path: Vec<usize>,
}

/// All services, by name and alias.
#[derive(Clone, Debug, Default)]
pub struct ServiceMap {
    services: Vec<Service>,
    names: HashMap<String, usize>,
}

/// A service as written, before the names it depends on are looked up.
struct Written {
    service: Service,
    names: Vec<Text>,
    depends_on: Vec<Text>,
}

impl ServiceMap {
    /// Reads service maps; together they are one.
    ///
    /// # Errors
    /// When a file cannot be read or holds an error; all problems of all files are reported.
    pub fn load(paths: &[PathBuf]) -> Result<Self, Problems> {
        let mut problems = Problems::new();
        let mut files = Vec::new();
        for path in paths {
            match fs::read_to_string(path) {
                Ok(text) => files.push((path.display().to_string(), text)),
                Err(error) => {
                    let place = Place::Named(path.display().to_string());
                    problems.push(Problem::error("unreadable", &place, format!("cannot be read: {error}")));
                }
            }
        }
        let map = Self::read(&files, &mut problems);
        problems.into_result(map)
    }

    /// Reads the texts of service maps, given with their paths.
    pub fn read(files: &[(String, String)], problems: &mut Problems) -> Self {
        let mut written = Vec::new();
        for (path, text) in files {
            let table = document::parse(path, text, problems);
            written.extend(table.tables("service", problems).iter().filter_map(|table| read_service(table, problems)));
            table.finish(problems);
        }
        let names = index(&written, problems);
        let mut services: Vec<Service> = written.iter().map(|written| written.service.clone()).collect();
        for (service, own) in services.iter_mut().zip(&written) {
            service.depends_on = dependencies(own, &written, &names, problems);
        }
        let names = names.into_iter().map(|(name, (service, _))| (name, service)).collect();
        let mut map = Self { services, names };
        map.give_voices();
        map
    }

    /// Every service, in the order of the files.
    pub fn services(&self) -> &[Service] {
        &self.services
    }

    /// The index of the service of that name or alias; `buffer` is scratch space.
    pub fn find(&self, name: &str, buffer: &mut String) -> Option<usize> {
        if self.names.is_empty() {
            return None;
        }
        fold_name(name, buffer);
        self.names.get(buffer.as_str()).copied()
    }

    /// The names along a path.
    pub fn names(&self, path: &[usize]) -> Vec<String> {
        path.iter().filter_map(|at| self.services.get(*at)).map(|service| service.name.clone()).collect()
    }

    /// Lets every service know what a ticket on it says.
    fn give_voices(&mut self) {
        let voices: Vec<Option<Voice>> = {
            let ways = self.ways();
            self.services.iter().enumerate().map(|(at, service)| self.voice(at, service, &ways)).collect()
        };
        for (service, voice) in self.services.iter_mut().zip(voices) {
            service.voice = voice;
        }
    }

    fn voice(&self, at: usize, service: &Service, ways: &[Option<Way>]) -> Option<Voice> {
        if let Some(Some(way)) = ways.get(at) {
            return Some(Voice { weight: faded(way.weight, way.hops), path: path(at, ways) });
        }
        (service.customer_facing == Some(false)).then(|| Voice { weight: -service.weight, path: vec![at] })
    }

    /// The best way from each service to the customer: breadth first from the services that customers meet, these in
    /// the order in which they win, so that whoever comes first has the best way.
    fn ways(&self) -> Vec<Option<Way>> {
        let mut facing: Vec<(usize, &Service)> =
            self.services.iter().enumerate().filter(|(_, service)| service.customer_facing == Some(true)).collect();
        facing.sort_by_key(|(_, service)| (std::cmp::Reverse(service.weight), folded_name(&service.name)));
        let mut ways: Vec<Option<Way>> = vec![None; self.services.len()];
        let start = |(at, service): (usize, &Service)| (at, Way { next: None, hops: 0, weight: service.weight });
        let mut queue: VecDeque<(usize, Way)> = facing.into_iter().map(start).collect();
        while let Some((at, way)) = queue.pop_front() {
            let Some(held @ None) = ways.get_mut(at) else { continue };
            *held = Some(way);
            let below = self.services.get(at).map(|service| service.depends_on.as_slice()).unwrap_or_default();
            queue.extend(below.iter().map(|to| (*to, Way { next: Some(at), hops: way.hops + 1, ..way })));
        }
        ways
    }
}

/// The first step from a service towards the customer.
#[derive(Clone, Copy, Debug)]
struct Way {
    next: Option<usize>,
    hops: i32,
    weight: Points,
}

/// The services along the best way, from one of them up.
fn path(from: usize, ways: &[Option<Way>]) -> Vec<usize> {
    let next = |at: &usize| ways.get(*at).copied().flatten().and_then(|way| way.next);
    std::iter::successors(Some(from), next).collect()
}

/// A weight after some hops, to the nearest hundredth, at least one.
fn faded(weight: Points, hops: i32) -> Points {
    #[expect(clippy::cast_possible_truncation, reason = "not above the weight")]
    let left = (f64::from(weight) * LEFT_PER_HOP.powi(hops)).round() as Points;
    left.max(1)
}

fn read_service(table: &Table, problems: &mut Problems) -> Option<Written> {
    let name = table.required_text("name", problems);
    let aliases = table.texts("aliases", problems).unwrap_or_default();
    let depends_on = table.texts("depends_on", problems).unwrap_or_default();
    let customer_facing = table.bool("customer_facing", problems);
    let weight = read_weight(table, customer_facing, problems);
    table.finish(problems);
    let name = name?;
    let service = Service {
        name: name.value.trim().to_owned(),
        aliases: aliases.iter().map(|alias| alias.value.clone()).collect(),
        customer_facing,
        weight,
        place: name.place.clone(),
        depends_on: Vec::new(),
        voice: None,
    };
    Some(Written { service, names: std::iter::once(name).chain(aliases).collect(), depends_on })
}

fn read_weight(table: &Table, customer_facing: Option<bool>, problems: &mut Problems) -> Points {
    let default = if customer_facing == Some(false) { DEFAULT_INTERNAL_WEIGHT } else { DEFAULT_WEIGHT };
    let Some(number) = table.number("weight", problems) else { return default };
    let place = table.get("weight").map_or(&table.place, |node| &node.place);
    points(number).unwrap_or_else(|| {
        let title = format!("`weight` is {number}; it must lie between 0.01 and 1000");
        problems.push(Problem::error("out-of-range", place, title));
        default
    })
}

/// Every name and alias with its service and place; names that are taken are reported.
fn index(written: &[Written], problems: &mut Problems) -> HashMap<String, (usize, Place)> {
    let mut names: HashMap<String, (usize, Place)> = HashMap::new();
    for (at, name) in written.iter().enumerate().flat_map(|(at, w)| w.names.iter().map(move |name| (at, name))) {
        let folded = folded_name(&name.value);
        if folded.is_empty() {
            problems.push(Problem::error("empty-name", &name.place, "a service needs a name"));
        } else if let Some((_, place)) = names.get(&folded) {
            let title = format!("the name `{}` is taken", name.value);
            problems.push(
                Problem::error("duplicate-name", &name.place, title)
                    .other(place, "first used here")
                    .help("names and aliases are compared without regard to case; each may stand once"),
            );
        } else {
            names.insert(folded, (at, name.place.clone()));
        }
    }
    names
}

fn dependencies(
    written: &Written,
    all: &[Written],
    names: &HashMap<String, (usize, Place)>,
    problems: &mut Problems,
) -> Vec<usize> {
    let own = folded_name(&written.service.name);
    let own = names.get(&own).map(|(service, _)| *service);
    let mut found = Vec::new();
    for text in &written.depends_on {
        match names.get(&folded_name(&text.value)) {
            Some((service, _)) if Some(*service) == own => {
                let title = format!("`{}` depends on itself", written.service.name);
                problems.push(Problem::error("self-dependency", &text.place, title).help("remove this name"));
            }
            Some((service, _)) => found.push(*service),
            None => problems.push(unknown_service(text, all)),
        }
    }
    found
}

fn unknown_service(text: &Text, all: &[Written]) -> Problem {
    let folded = folded_name(&text.value);
    let known: Vec<(String, &str)> =
        all.iter().flat_map(|w| &w.names).map(|name| (folded_name(&name.value), name.value.as_str())).collect();
    let near = closest(&folded, known.iter().map(|(folded, _)| folded.as_str()));
    let as_written = near.and_then(|near| known.iter().find(|(folded, _)| folded == near)).map(|(_, written)| written);
    let help = match as_written {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("add a service: [[service]] name = {:?}", text.value),
    };
    Problem::error("unknown-service", &text.place, format!("there is no service `{}`", text.value)).help(help)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(text: &str) -> (ServiceMap, Problems) {
        let mut problems = Problems::new();
        let map = ServiceMap::read(&[("services.toml".to_owned(), text.to_owned())], &mut problems);
        (map, problems)
    }

    fn voice(map: &ServiceMap, name: &str) -> Option<(Points, String)> {
        let service = &map.services[map.find(name, &mut String::new())?];
        service.voice.as_ref().map(|voice| (voice.weight, map.names(&voice.path).join(" < ")))
    }

    const SHOP: &str = r#"
        [[service]]
        name = "Webshop"
        aliases = ["www.shop.example", "Ｓｈｏｐ"]
        customer_facing = true
        depends_on = ["orders", "search"]
        [[service]]
        name = "orders"
        depends_on = ["db01"]
        [[service]]
        name = "search"
        [[service]]
        name = "db01"
        depends_on = ["orders", "san"]
        [[service]]
        name = "san"
        [[service]]
        name = "payroll"
        customer_facing = false
        [[service]]
        name = "intranet"
    "#;

    #[test]
    fn weight_falls_with_each_hop_to_the_customer() {
        let (map, problems) = map(SHOP);
        assert!(problems.is_empty(), "{problems}");
        for (name, expected) in [
            (" WEBSHOP ", Some((400, "Webshop"))),
            ("shop", Some((400, "Webshop"))),
            ("orders", Some((300, "orders < Webshop"))),
            ("DB01", Some((225, "db01 < orders < Webshop"))),
            ("san", Some((169, "san < db01 < orders < Webshop"))),
            ("payroll", Some((-200, "payroll"))),
            ("intranet", None),
            ("unknown", None),
        ] {
            assert_eq!(voice(&map, name), expected.map(|(weight, path)| (weight, path.to_owned())), "{name}");
        }
    }

    #[test]
    fn of_two_ways_the_shorter_and_then_the_heavier_wins() {
        let (map, _) = map(r#"
            service = [
                { name = "a", customer_facing = true, weight = 9, depends_on = ["x"] },
                { name = "b", customer_facing = true, weight = 2, depends_on = ["db"] },
                { name = "c", customer_facing = true, weight = 3, depends_on = ["db"] },
                { name = "x", depends_on = ["db"] }, { name = "db", customer_facing = false },
            ]"#);
        assert_eq!(voice(&map, "db"), Some((225, "db < c".to_owned())));
    }

    #[test]
    fn all_problems_of_a_map_are_found() {
        let (_, problems) = map(r#"
            service = [
                { name = "a", aliases = ["B"], depends_on = ["A", "paymnet"] },
                { name = "b", weight = -1 }, { name = "payment", facing = true },
            ]"#);
        let codes: Vec<_> = problems.iter().map(|problem| problem.code).collect();
        let expected = ["out-of-range", "unknown-key", "duplicate-name", "self-dependency", "unknown-service"];
        assert_eq!(codes, expected);
        assert!(problems.to_string().contains("did you mean `payment`?"), "{problems}");
    }
}
