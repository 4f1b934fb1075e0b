//! Small sums on whole numbers:
//!
//!     calc square N [FILE]    N²
//!     calc sum TEXT [FILE]    the sum of all numbers in TEXT, as in [1,"4",9]
//!
//! prints the result, and writes it to FILE as well, where Argo finds an output parameter.

use std::{env, fs, process};

fn main() {
    let args: Vec<String> = env::args().skip(1).collect();
    let result = match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["square", n, ..] => n.parse::<i64>().map(|n| n * n).map_err(|e| format!("{:?}: {}", n, e)),
        ["sum", text, ..] => sum(text),
        _ => Err("usage: calc square N [FILE] | calc sum TEXT [FILE]".to_string()),
    };
    let result = result.unwrap_or_else(|message| fail(&message));
    println!("{}", result);
    if let Some(file) = args.get(2) {
        fs::write(file, result.to_string()).unwrap_or_else(|e| fail(&format!("{}: {}", file, e)));
    }
}

fn sum(text: &str) -> Result<i64, String> {
    text.split(|c: char| !c.is_ascii_digit() && c != '-')
        .filter(|number| !number.is_empty())
        .map(|number| number.parse::<i64>().map_err(|e| format!("{:?}: {}", number, e)))
        .sum()
}

fn fail(message: &str) -> ! {
    eprintln!("calc: {}", message);
    process::exit(1);
}
