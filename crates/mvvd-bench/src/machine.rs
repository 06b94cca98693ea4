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
