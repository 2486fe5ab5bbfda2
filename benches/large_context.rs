//! Peak memory of the client while it sends a context of 2 GiB to a real engine.
//!
//! `IPYBOX_TEST_BASE=IMAGE cargo bench --bench large_context`, with a local image. Fails where the
//! peak is 20 MB or more.

#![expect(clippy::print_stdout, reason = "it is run for what it prints")]
#![expect(clippy::disallowed_methods, reason = "it is configured through the environment")]

use std::time::Instant;

use ipybox::archive::Archive;
use ipybox::engine::{Build, BuildEvent, Choice, Engine, KnownEngines};
use tokio_util::sync::CancellationToken;

/// Bytes of the one large file.
const SIZE: u64 = 2 << 30;

/// Bytes the client may have in memory at once.
const LIMIT: u64 = 20_000_000;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let base = std::env::var("IPYBOX_TEST_BASE")?;
    let choice = Choice {
        docker_host: std::env::var("DOCKER_HOST").ok().filter(|host| !host.is_empty()),
        ..Choice::default()
    };
    let file = tempfile::NamedTempFile::new()?;
    file.as_file().set_len(SIZE)?;
    let mut context = Archive::default();
    context.add("Dockerfile", format!("FROM {base}\n"));
    context.add_file("large", 0o644, file.path())?;
    let engine = Engine::connect(
        choice.candidates()?,
        choice.auth_files(),
        &KnownEngines::default(),
        CancellationToken::new(),
    )
    .await?;
    let before = peak_memory()?;
    let begun = Instant::now();
    let mut sent = 0;
    let build = Build::of(context);
    engine
        .build(build, |event| {
            if let BuildEvent::Sent { bytes } = event {
                sent = bytes;
            }
        })
        .await?;
    let peak = peak_memory()?;
    println!("storage driver   {}", driver()?);
    println!("context          {sent} bytes in {:.1} s", begun.elapsed().as_secs_f64());
    println!("peak memory      {:.1} MB ({:.1} MB before the build)", megabytes(peak), megabytes(before));
    assert!(sent > SIZE, "the engine took only {sent} bytes");
    assert!(peak < LIMIT, "the peak is above {LIMIT} bytes");
    Ok(())
}

/// How the engine stores images.
fn driver() -> std::io::Result<String> {
    let asked = std::process::Command::new("docker").args(["info", "--format", "{{.Driver}}"]).output()?;
    Ok(String::from_utf8_lossy(&asked.stdout).trim().to_owned())
}

/// Peak resident memory of this process, in bytes.
///
/// Source: proc(5), `VmHWM` of `/proc/self/status`.
fn peak_memory() -> Result<u64, Box<dyn std::error::Error>> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).ok_or("no VmHWM")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? * 1024)
}

#[expect(clippy::cast_precision_loss, reason = "for people")]
fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}
