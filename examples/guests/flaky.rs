//! Fails until it is tried often enough:
//!
//!     flaky ATTEMPT ENOUGH
//!
//! exits with code 75 (EX_TEMPFAIL of sysexits.h) while ATTEMPT, counted from 0, is below ENOUGH.

use std::{env, process};

fn main() {
    let numbers: Vec<u32> = env::args().skip(1).filter_map(|arg| arg.parse().ok()).collect();
    if numbers.len() != 2 {
        eprintln!("usage: flaky ATTEMPT ENOUGH");
        process::exit(2);
    }
    if numbers[0] < numbers[1] {
        eprintln!("attempt {} fails, {} will succeed", numbers[0], numbers[1]);
        process::exit(75);
    }
    println!("attempt {} succeeds", numbers[0]);
}
