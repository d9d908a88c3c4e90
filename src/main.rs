//! The command line of customer-reach; everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    customer_reach::cli::run()
}
