//! The `omnimini` program: everything is in the library's `cli` module.

fn main() -> std::process::ExitCode {
    omnimini::cli::run(std::env::args_os())
}
