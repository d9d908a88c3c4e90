//! `services`: service maps checked, and the paths to the customer shown.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::json;

use super::{Ended, Format};
use crate::classify::explain::weight;
use crate::diagnostic::{Problems, closest};
use crate::service::{Service, ServiceMap};

/// `services …`.
#[derive(Debug, Args)]
pub struct ServicesArgs {
    #[command(subcommand)]
    command: ServicesCommand,
}

#[derive(Debug, Subcommand)]
enum ServicesCommand {
    /// Finds everything that is wrong with service maps
    Check {
        /// Service maps (TOML); together they are one
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
        /// The form of the results
        #[arg(long, value_enum, default_value_t = Format::Text)]
        format: Format,
    },
    /// Shows every service with its path to the customer
    Show {
        /// A service map (TOML)
        file: PathBuf,
        /// Only the service of this name or alias
        name: Option<String>,
        /// The form of the results
        #[arg(long, value_enum, default_value_t = Format::Text)]
        format: Format,
    },
}

/// Runs the command.
///
/// # Errors
/// When a map to be shown cannot be loaded or does not hold the name, or results cannot be written.
pub fn run(args: &ServicesArgs) -> anyhow::Result<Ended> {
    let mut out = std::io::stdout().lock();
    let colour = out.is_terminal();
    match &args.command {
        ServicesCommand::Check { files, format } => run_check(files, *format, colour, &mut out),
        ServicesCommand::Show { file, name, format } => {
            let map = ServiceMap::load(std::slice::from_ref(file))?;
            run_show(&map, name.as_deref(), *format, &mut out)
        }
    }
}

fn run_check(files: &[PathBuf], format: Format, colour: bool, out: &mut impl Write) -> anyhow::Result<Ended> {
    let (map, problems) = match ServiceMap::load(files) {
        Ok(map) => (map, Problems::new()),
        Err(problems) => (ServiceMap::default(), problems),
    };
    let (errors, warnings) = problems.counts();
    let services = map.services().len();
    match format {
        Format::Json => {
            let report =
                json!({"services": services, "errors": errors, "warnings": warnings, "problems": problems.to_json()});
            writeln!(out, "{}", serde_json::to_string_pretty(&report)?)?;
        }
        Format::Text if problems.is_empty() => writeln!(out, "{services} services, no problems")?,
        Format::Text => writeln!(out, "{}\n\n{}", problems.render(colour), problems.summary())?,
    }
    Ok(if problems.is_empty() { Ended::Fine } else { Ended::Found })
}

fn run_show(map: &ServiceMap, name: Option<&str>, format: Format, out: &mut impl Write) -> anyhow::Result<Ended> {
    let services: Vec<&Service> = match name {
        None => map.services().iter().collect(),
        Some(name) => match map.find(name, &mut String::new()).and_then(|at| map.services().get(at)) {
            Some(service) => vec![service],
            None => anyhow::bail!(unknown(map, name)),
        },
    };
    match format {
        Format::Json => {
            let all: Vec<_> = services.iter().map(|service| service_json(map, service)).collect();
            writeln!(out, "{}", serde_json::to_string_pretty(&all)?)?;
        }
        Format::Text => {
            let width = services.iter().map(|service| service.name.chars().count()).max().unwrap_or(0);
            for service in services {
                writeln!(out, "{:width$}  {}", service.name, says(map, service))?;
            }
        }
    }
    Ok(Ended::Fine)
}

fn unknown(map: &ServiceMap, name: &str) -> String {
    let near = closest(name, map.services().iter().map(|service| service.name.as_str()));
    let hint = near.map_or(String::new(), |near| format!("; did you mean `{near}`?"));
    format!("there is no service `{name}`{hint}")
}

/// What a ticket on a service says, in words.
fn says(map: &ServiceMap, service: &Service) -> String {
    let Some(voice) = &service.voice else {
        return "says nothing: no customer-facing service depends on it".to_owned();
    };
    let points = weight(voice.weight);
    match voice.path.len() {
        1 if voice.weight > 0 => format!("customer {points:+.2}  customers meet it"),
        1 => format!("internal {points:+.2}  no customer-facing service depends on it"),
        _ => format!("customer {points:+.2}  {}", map.names(&voice.path).join(" -> ")),
    }
}

fn service_json(map: &ServiceMap, service: &Service) -> serde_json::Value {
    json!({
        "name": service.name,
        "aliases": service.aliases,
        "customer_facing": service.customer_facing,
        "weight": service.voice.as_ref().map(|voice| weight(voice.weight)),
        "path": service.voice.as_ref().map(|voice| map.names(&voice.path)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> ServiceMap {
        let text = include_str!("../../patterns/services.example.toml").to_owned();
        let mut problems = Problems::new();
        let map = ServiceMap::read(&[("services.example.toml".to_owned(), text)], &mut problems);
        assert!(problems.is_empty(), "{problems}");
        map
    }

    fn shown(name: &str) -> anyhow::Result<String> {
        let mut out = Vec::new();
        run_show(&example(), Some(name), Format::Text, &mut out)?;
        Ok(String::from_utf8(out)?)
    }

    #[test]
    fn the_path_to_the_customer_is_shown() {
        assert_eq!(shown("SHOP.ALPENRAD.EXAMPLE").unwrap(), "Web shop  customer +6.00  customers meet it\n");
        let path = "Order database  customer +3.38  Order database -> Order service -> Web shop\n";
        assert_eq!(shown("order database").unwrap(), path);
        assert_eq!(
            shown("HR portal").unwrap(),
            "HR portal  internal -2.00  no customer-facing service depends on it\n"
        );
        let error = shown("Ordr database").unwrap_err().to_string();
        assert_eq!(error, "there is no service `Ordr database`; did you mean `Order database`?");
    }
}
