//! Reads a text and writes the results into a folder:
//!
//!     wordcount TEXT FOLDER
//!
//! FOLDER/words.tsv has a line for each word with its count, the most frequent first, and
//! FOLDER/summary.txt the totals.

use std::collections::HashMap;
use std::{env, fs, io, process};

fn main() {
    let args: Vec<String> = env::args().skip(1).collect();
    if args.len() != 2 {
        eprintln!("usage: wordcount TEXT FOLDER");
        process::exit(2);
    }
    if let Err(message) = run(&args[0], &args[1]) {
        eprintln!("wordcount: {}", message);
        process::exit(1);
    }
}

fn run(text: &str, folder: &str) -> Result<(), String> {
    let text = fs::read_to_string(text).map_err(|e| named(text, e))?;
    let mut counts: HashMap<String, usize> = HashMap::new();
    for word in text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()) {
        *counts.entry(word.to_lowercase()).or_default() += 1;
    }
    let mut words: Vec<(String, usize)> = counts.into_iter().collect();
    words.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    let lines: String = words.iter().map(|(word, count)| format!("{}\t{}\n", word, count)).collect();
    let total: usize = words.iter().map(|(_, count)| count).sum();
    let summary = format!("{} words, {} different, {} lines\n", total, words.len(), text.lines().count());

    fs::create_dir_all(folder).map_err(|e| named(folder, e))?;
    for (name, content) in [("words.tsv", &lines), ("summary.txt", &summary)] {
        let path = format!("{}/{}", folder, name);
        fs::write(&path, content).map_err(|e| named(&path, e))?;
    }
    print!("{}", summary);
    Ok(())
}

fn named(path: &str, error: io::Error) -> String {
    format!("{}: {}", path, error)
}
