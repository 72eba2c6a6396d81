//! The `omnimini` program: everything is in the library's `cli` module.

fn main() -> std::process::ExitCode {
    quiet_mesa();
    omnimini::cli::run(std::env::args_os())
}

/// Mesa's layer that picks a default device asks the desktop for its opinion, and prints an error
/// where there is no desktop. Adapters are ordered by us, so it has nothing to do.
#[expect(
    unsafe_code,
    reason = "an environment variable is the only switch there is"
)]
fn quiet_mesa() {
    if std::env::var_os("XDG_RUNTIME_DIR").is_none() {
        // SAFETY: the program has one thread yet.
        unsafe { std::env::set_var("NODEVICE_SELECT", "1") };
    }
}
