//! `cargo xtask verifier`: the kernel verifier's cost of the XDP program, against a budget. Instructions walked, and
//! the stack of the largest function, show how close a program is to being refused by an older kernel, whose verifier
//! prunes less; the budget makes growth visible early.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context, Result, bail};

use crate::{build, packages, setup, workspace::Workspace};

/// The committed budget.
const BUDGET: &str = "xtask/verifier-budget.txt";

/// The objects that users run.
const OBJECTS: [&str; 2] = ["lb-ebpf.o", "lb-ebpf-decap.o"];

/// Loads every program of the object with a bpffs that goes away with its mount namespace: arguments are the object
/// and the directory to mount on.
const LOAD: &str = "mount -t bpf bpf \"$1\" && exec bpftool --debug prog loadall \"$0\" \"$1/programs\"";

/// Options of `cargo xtask verifier`.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Install packages without asking
    #[arg(long)]
    yes: bool,
}

/// The verifier's cost of a program, or its budget.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Cost {
    /// Instructions walked, over all paths.
    instructions: u64,
    /// Bytes of stack of the function that needs most. The kernel's limit of 512 is for nested functions together.
    stack: u64,
}

/// Runs `cargo xtask verifier`.
pub(crate) fn command(workspace: &Workspace, options: &Options) -> Result<()> {
    let toolchain = setup::ensure(options.yes)?;
    packages::ensure()?;
    build::bpf(workspace, &toolchain)?;
    check(workspace)
}

/// Loads the built object and compares each program with its budget.
///
/// # Errors
/// When the kernel refuses a program, or one is over its budget or has none.
pub(crate) fn check(workspace: &Workspace) -> Result<()> {
    let budget_file = workspace.root.join(BUDGET);
    let text = fs::read_to_string(&budget_file).with_context(|| format!("cannot read {BUDGET}"))?;
    let budget = parse_budget(&text)?;
    let mut costs = BTreeMap::new();
    for object in OBJECTS {
        let object = workspace.bpf_object().with_file_name(object);
        let of_object = parse_log(&load(&object, &workspace.target.join("verifier"))?);
        if of_object.is_empty() {
            bail!("bpftool loaded no program of {}", object.display());
        }
        costs.extend(of_object);
    }
    let mut over = Vec::new();
    println!(
        "{:<16} {:>12} {:>12} {:>6} {:>6}",
        "program", "instructions", "budget", "stack", "budget"
    );
    for (name, cost) in &costs {
        let Some(limit) = budget.get(name) else {
            over.push(format!("{name} has no budget in {BUDGET}"));
            continue;
        };
        println!(
            "{name:<16} {:>12} {:>12} {:>6} {:>6}",
            cost.instructions, limit.instructions, cost.stack, limit.stack
        );
        if cost.instructions > limit.instructions || cost.stack > limit.stack {
            over.push(format!("{name} is over its budget in {BUDGET}"));
        }
    }
    if !over.is_empty() {
        bail!("{}", over.join("; "));
    }
    Ok(())
}

/// Loads the object with bpftool and gives its log.
fn load(object: &Path, mount_point: &Path) -> Result<String> {
    fs::create_dir_all(mount_point).with_context(|| format!("cannot create {}", mount_point.display()))?;
    let output = packages::root_command("unshare")?
        .args(["--mount", "sh", "-c", LOAD])
        .args([object, mount_point])
        .output()
        .context("cannot start unshare")?;
    let log = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        let lines: Vec<&str> = log.lines().collect();
        bail!(
            "the kernel refuses the program:\n{}",
            lines[lines.len().saturating_sub(60)..].join("\n")
        );
    }
    Ok(log)
}

/// Reads `program instructions stack` lines; `#` begins a comment.
fn parse_budget(text: &str) -> Result<BTreeMap<String, Cost>> {
    let mut budget = BTreeMap::new();
    for line in text
        .lines()
        .map(|line| line.split('#').next().unwrap_or_default().trim())
    {
        if line.is_empty() {
            continue;
        }
        let words: Vec<&str> = line.split_whitespace().collect();
        let [name, instructions, stack] = words[..] else {
            bail!("{BUDGET}: not `program instructions stack`: {line}")
        };
        budget.insert(
            name.to_owned(),
            Cost {
                instructions: instructions.parse()?,
                stack: stack.parse()?,
            },
        );
    }
    Ok(budget)
}

/// Reads costs from libbpf's log: the name of a program, then the verifier's statistics.
fn parse_log(log: &str) -> BTreeMap<String, Cost> {
    let mut costs = BTreeMap::new();
    let mut program = None;
    let mut stack = 0;
    for line in log.lines() {
        if let Some(rest) = line.strip_prefix("libbpf: prog '") {
            program = rest.split('\'').next();
            stack = 0;
        } else if let Some(depths) = line.strip_prefix("stack depth ") {
            stack = depths
                .split('+')
                .filter_map(|depth| depth.trim().parse::<u64>().ok())
                .max()
                .unwrap_or(0);
        } else if let Some(rest) = line.strip_prefix("processed ")
            && let Some(instructions) = rest.split(' ').next().and_then(|number| number.parse().ok())
            && let Some(name) = program
        {
            costs.insert(name.to_owned(), Cost { instructions, stack });
        }
    }
    costs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn costs_are_read_from_the_log() {
        let log = "libbpf: prog 'lb': -- BEGIN PROG LOAD LOG --\nverification time 512 usec\nstack depth 96+24\n\
                   processed 1234 insns (limit 1000000) max_states_per_insn 4 total_states 67\n\
                   libbpf: prog 'lb': -- END PROG LOAD LOG --\n";
        assert_eq!(
            parse_log(log),
            BTreeMap::from([(
                "lb".to_owned(),
                Cost {
                    instructions: 1234,
                    stack: 96
                }
            )])
        );
    }

    #[test]
    fn budgets_are_read_with_comments() {
        let budget = parse_budget("# program instructions stack\nlb 20000 400 # kernel 6.18\n\n").unwrap();
        assert_eq!(
            budget,
            BTreeMap::from([(
                "lb".to_owned(),
                Cost {
                    instructions: 20_000,
                    stack: 400
                }
            )])
        );
        assert!(parse_budget("lb 20000\n").is_err());
    }
}
