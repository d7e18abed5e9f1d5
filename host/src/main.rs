use std::process::ExitCode;

fn main() -> ExitCode {
    aster_host::cli::main()
}
