//! The executable: the command line, the demo, and the allocator. Everything else is the library's.

mod cli;
mod demo;

/// Workers allocate on every request; the system's allocator costs them measurably more. Embedding programs choose
/// their own, so this is here and not in the library. Built without huge pages: they cost a small machine 40 MB of idle
/// memory and gained no CPU per request.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    cli::main()
}
