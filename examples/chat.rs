//! The shortest program with a model inside:
//! `cargo run --release --example chat MODEL.gguf "Why is the sky blue?"`.

use std::io::Write;

use omnimini::{LoadOptions, Model, Options, Part, Sampling};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let path = args.next().ok_or("give a GGUF file and a question")?;
    let question = args.next().unwrap_or("Why is the sky blue?".into());

    let model = Model::load(path, &LoadOptions::default())?;
    let mut session = model.session()?;
    let options = Options {
        sampling: Sampling {
            max_tokens: 200,
            ..Sampling::default()
        },
        ..Options::default()
    };
    let mut answer = session.ask(&question, &options)?;
    while let Some(delta) = answer.next()? {
        // The other parts are what it thinks, and the calls that it makes.
        if delta.part == Part::Content {
            write!(std::io::stdout(), "{}", delta.text)?;
            std::io::stdout().flush()?;
        }
    }
    Ok(())
}
