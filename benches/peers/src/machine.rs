//! What the figures were taken on.

use std::fmt;
use std::fs;
use std::process::Command;
use std::thread;

pub struct Machine {
    pub processor: String,
    pub is_virtual: bool,
    pub cores: usize,
    pub date: String,
}

impl Machine {
    pub fn this() -> Self {
        Self {
            is_virtual: is_virtual(),
            processor: processor().unwrap_or_else(|| "unknown processor".into()),
            cores: thread::available_parallelism().map_or(1, usize::from),
            date: output("date", &["-u", "+%Y-%m-%d"]).unwrap_or_else(|| "unknown date".into()),
        }
    }
}

impl Machine {
    /// What has to be known to read the figures of this machine.
    pub fn caveat(&self) -> Option<&'static str> {
        self.is_virtual.then_some(
            "tower_governor and axum-governor execute cpuid when they refuse. A virtual machine traps it, which takes \
             microseconds; elsewhere it is faster.",
        )
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { processor, is_virtual, cores, date } = self;
        let guest = if *is_virtual { " (virtual machine)" } else { "" };
        write!(f, "{processor}{guest}, {cores} cores, {}, {date}", env!("COMPILER"))
    }
}

fn processor() -> Option<String> {
    let linux = || {
        let text = fs::read_to_string("/proc/cpuinfo").ok()?;
        let line = text.lines().find(|line| line.starts_with("model name"))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    linux().or_else(|| output("sysctl", &["-n", "machdep.cpu.brand_string"]))
}

fn is_virtual() -> bool {
    fs::read_to_string("/proc/cpuinfo")
        .is_ok_and(|text| text.split_whitespace().any(|flag| flag == "hypervisor"))
}

fn output(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .ok()
        .filter(|output| output.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
}
