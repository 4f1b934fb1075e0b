//! Prints a greeting for the names in its arguments, and the architecture that it runs on.

use std::env;

fn main() {
    let whom: Vec<String> = env::args().skip(1).collect();
    let whom = if whom.is_empty() { "world".to_string() } else { whom.join(" ") };
    println!("hello {}, from WebAssembly ({})", whom, env::consts::ARCH);
}
