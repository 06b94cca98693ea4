//! Which machine a figure comes from.

/// Processor, cores and kernel level in one line.
pub(crate) fn describe() -> String {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get);
    let mut system = sysinfo::System::new();
    system.refresh_cpu_all();
    system.refresh_memory();
    let cpu = system.cpus().first().map_or_else(String::new, |cpu| cpu.brand().trim().to_owned());
    let gib = system.total_memory() as f64 / f64::from(1 << 30);
    format!("machine: {cpu}, {cores} cores, {gib:.0} GiB, kernels {}", mvvd_core::kernels::level())
}

/// Runs the first thread of the process on this core only, and threads that it starts from now on.
pub(crate) fn pin(core: u32) -> Result<(), String> {
    run_on(&core.to_string())
}

/// Undoes [`pin`].
pub(crate) fn unpin() -> Result<(), String> {
    run_on("0-1023")
}

fn run_on(cores: &str) -> Result<(), String> {
    let process = std::process::id().to_string();
    let run = std::process::Command::new("taskset").args(["--pid", "--cpu-list", cores, &process]).output();
    match run {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(format!("taskset: {}", String::from_utf8_lossy(&output.stderr).trim())),
        Err(e) => Err(format!("running on one core needs the command taskset: {e}")),
    }
}

/// The most memory that the process has had; none where the system does not tell.
pub(crate) fn peak_memory_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().trim_end_matches("kB").trim().parse::<u64>().ok()? * 1024)
}
