//! `cargo xtask verifier`: the kernel verifier's cost of the XDP program, against a budget. Instructions walked, and
//! the stack of nested functions, show how close a program is to being refused by an older kernel, whose verifier
//! prunes less; the budget makes growth visible early.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context, Result, bail};

use crate::{build, packages, setup, workspace::Workspace};

/// The committed budget.
const BUDGET: &str = "xtask/verifier-budget.txt";

/// Most instructions that a budget allows.
const MOST_INSTRUCTIONS: u64 = 30_000;

/// Most bytes of stack of nested functions; the kernel refuses more than 512.
const MOST_STACK: u64 = 400;

/// Linux 6.1 gives each function a multiple of these bytes of stack.
const STACK_UNIT: u64 = 32;

/// The objects that users run, and what the names of their programs begin with here.
const OBJECTS: [(&str, &str); 3] = [
    ("lb-ebpf.o", ""),
    ("lb-ebpf-decap.o", ""),
    ("lb-ebpf-monitor.o", MONITORED),
];

/// Programs that run while `lb monitor` does have no budget of their own: they are the usual ones and a bit more.
const MONITORED: &str = "monitored.";

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

/// The verifier's cost of a program.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Cost {
    /// Instructions walked, over all paths.
    instructions: u64,
    /// Bytes of stack of nested functions together, where they need most.
    stack: u64,
}

/// The functions of a program as the verifier's log shows them.
#[derive(Default)]
struct Functions {
    /// Instructions at which they begin, in order.
    starts: Vec<u64>,
    /// Instructions that call, and the begins of what they call.
    calls: Vec<(u64, u64)>,
    /// Bytes of stack of each.
    stacks: Vec<u64>,
}

impl Functions {
    /// The number of the function that an instruction belongs to.
    fn of(&self, instruction: u64) -> usize {
        self.starts
            .partition_point(|start| *start <= instruction)
            .saturating_sub(1)
    }

    /// Bytes of stack of a function and of what it calls, where they need most. The verifier refuses recursion.
    fn nested_stack(&self, function: usize) -> u64 {
        let own = self.stacks.get(function).copied().unwrap_or(0).max(1);
        let called = self
            .calls
            .iter()
            .filter(|(from, to)| self.of(*from) == function && self.of(*to) != function)
            .map(|(_, to)| self.nested_stack(self.of(*to)));
        own.next_multiple_of(STACK_UNIT) + called.max().unwrap_or(0)
    }
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
    for (object, prefix) in OBJECTS {
        let object = workspace.bpf_object().with_file_name(object);
        let of_object = parse_log(&load(&object, &workspace.target.join("verifier"))?);
        if of_object.is_empty() {
            bail!("bpftool loaded no program of {}", object.display());
        }
        costs.extend(
            of_object
                .into_iter()
                .map(|(name, cost)| (format!("{prefix}{name}"), cost)),
        );
    }
    let mut over = Vec::new();
    println!(
        "{:<26} {:>12} {:>12} {:>6}",
        "program", "instructions", "budget", "stack"
    );
    for (name, cost) in &costs {
        let has_none = name.starts_with(MONITORED).then_some(&MOST_INSTRUCTIONS);
        let Some(limit) = budget.get(name).or(has_none) else {
            over.push(format!("{name} has no budget in {BUDGET}"));
            continue;
        };
        println!(
            "{name:<26} {:>12} {limit:>12} {:>6}",
            cost.instructions, cost.stack
        );
        if cost.instructions > *limit {
            over.push(format!("{name} is over its budget in {BUDGET}"));
        }
        if cost.stack > MOST_STACK {
            over.push(format!(
                "{name} takes {} bytes of stack; at most {MOST_STACK} may be used",
                cost.stack
            ));
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

/// Reads `program instructions` lines; `#` begins a comment.
fn parse_budget(text: &str) -> Result<BTreeMap<String, u64>> {
    let mut budget = BTreeMap::new();
    for line in text
        .lines()
        .map(|line| line.split('#').next().unwrap_or_default().trim())
    {
        if line.is_empty() {
            continue;
        }
        let words: Vec<&str> = line.split_whitespace().collect();
        let [name, instructions] = words[..] else {
            bail!("{BUDGET}: not `program instructions`: {line}")
        };
        let instructions = instructions.parse()?;
        if instructions > MOST_INSTRUCTIONS {
            bail!("{BUDGET}: {name} may walk {MOST_INSTRUCTIONS} instructions at most");
        }
        budget.insert(name.to_owned(), instructions);
    }
    Ok(budget)
}

/// Reads costs from libbpf's log: the name of a program, its functions and calls, then the verifier's statistics.
fn parse_log(log: &str) -> BTreeMap<String, Cost> {
    let mut costs = BTreeMap::new();
    let mut program = None;
    let mut functions = Functions::default();
    for line in log.lines() {
        if let Some(rest) = line.strip_prefix("libbpf: prog '") {
            program = rest.split('\'').next();
            functions = Functions::default();
        } else if let Some(start) = function_start(line) {
            functions.starts.push(start);
        } else if let Some(call) = call(line) {
            functions.calls.push(call);
        } else if let Some(depths) = line.strip_prefix("stack depth ") {
            let depths = depths.split('+');
            functions.stacks = depths.filter_map(|depth| depth.trim().parse().ok()).collect();
        } else if let Some(rest) = line.strip_prefix("processed ")
            && let Some(instructions) = rest.split(' ').next().and_then(|number| number.parse().ok())
            && let Some(name) = program
        {
            functions.calls.sort_unstable();
            functions.calls.dedup();
            let stack = functions.nested_stack(0);
            costs.insert(name.to_owned(), Cost { instructions, stack });
        }
    }
    costs
}

/// The begin of a function: `func#1 @38`.
fn function_start(line: &str) -> Option<u64> {
    line.strip_prefix("func#")?.split_once(" @")?.1.parse().ok()
}

/// A call of one of the program's functions: `32: (85) call pc+54`, relative to the next instruction.
fn call(line: &str) -> Option<(u64, u64)> {
    let (from, call) = line.split_once(": (85) call pc")?;
    let from: u64 = from.parse().ok()?;
    let distance: i64 = call.split_whitespace().next()?.parse().ok()?;
    Some((from, (from + 1).checked_add_signed(distance)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn costs_are_read_from_the_log() {
        let log = "libbpf: prog 'lb': -- BEGIN PROG LOAD LOG --\nverification time 512 usec\nstack depth 96\n\
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
    fn stacks_of_nested_functions_are_added() {
        // The main function calls the first and the second, and that the third.
        let log = "libbpf: prog 'lb': -- BEGIN PROG LOAD LOG --\nfunc#0 @0\nfunc#1 @10\nfunc#2 @20\nfunc#3 @30\n\
                   3: (85) call pc+6\n4: (85) call pc+15\n25: (85) call pc+4\n25: (85) call pc+4\n5: (85) call unknown\n\
                   stack depth 8+100+33+0\nprocessed 40 insns (limit 1000000)\n";
        let cost = parse_log(log)["lb"];
        assert_eq!(cost.stack, 32 + 128);
        let backwards = log.replace("25: (85) call pc+4", "25: (85) call pc-16");
        assert_eq!(parse_log(&backwards)["lb"].stack, 32 + 64 + 128);
    }

    #[test]
    fn budgets_are_read_with_comments() {
        let budget = parse_budget("# program instructions\nlb 20000 # kernel 6.18\n\n").unwrap();
        assert_eq!(budget, BTreeMap::from([("lb".to_owned(), 20_000)]));
        assert!(parse_budget("lb\n").is_err());
        assert!(parse_budget("lb 30001\n").is_err());
    }
}
