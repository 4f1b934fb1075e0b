//! Greets whom its arguments name, and says where it runs.

use std::env;

fn main() {
    let whom: Vec<String> = env::args().skip(1).collect();
    let whom = if whom.is_empty() { "world".to_string() } else { whom.join(" ") };
    println!("hello {}, from WebAssembly ({})", whom, env::consts::ARCH);
}
