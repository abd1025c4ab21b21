//! `cargo xtask verifier`: the kernel verifier's cost of the XDP program, against a budget. Instructions walked, and
//! the stack of nested functions, show how close a program is to being refused by an older kernel, whose verifier
//! prunes less; the budget makes growth visible early.
//!
//! Its length and its calls of helpers show what packets pay: a helper costs 5 to 20 ns, and 20 ns are some 70 instructions. They are
//! counted, not measured, so that a slower program fails on any machine.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use anyhow::{Context, Result, bail};

use crate::{build, packages, setup, toolchain::Toolchain, workspace::Workspace};

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

/// What a program without a budget of its own may have.
const ANY: Limit = Limit {
    instructions: MOST_INSTRUCTIONS,
    size: Size {
        length: usize::MAX,
        calls: usize::MAX,
    },
};

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
    /// What packets pay.
    size: Size,
}

/// Instructions that the verifier has seen, and calls of helpers among them, each once.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Size {
    length: usize,
    calls: usize,
}

/// A program's limits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Limit {
    instructions: u64,
    size: Size,
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
    /// Instructions, and those that call a helper.
    seen: BTreeSet<u64>,
    helpers: BTreeSet<u64>,
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
    // Another compiler makes other code.
    let counts_size = matches!(Toolchain::find()?, Some(Toolchain::Debian { .. }));
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
        "{:<26} {:>12} {:>12} {:>6} {:>7} {:>7} {:>6} {:>6}",
        "program", "instructions", "budget", "stack", "length", "budget", "calls", "budget"
    );
    for (name, cost) in &costs {
        let has_none = name.starts_with(MONITORED).then_some(&ANY);
        let Some(limit) = budget.get(name).or(has_none) else {
            over.push(format!("{name} has no budget in {BUDGET}"));
            continue;
        };
        println!(
            "{name:<26} {:>12} {:>12} {:>6} {:>7} {:>7} {:>6} {:>6}",
            cost.instructions,
            limit.instructions,
            cost.stack,
            cost.size.length,
            limit.size.length,
            cost.size.calls,
            limit.size.calls
        );
        if cost.instructions > limit.instructions {
            over.push(format!("{name} is over its budget in {BUDGET}"));
        }
        let (size, most) = (cost.size, limit.size);
        if counts_size && (size.length > most.length || size.calls > most.calls) {
            over.push(format!(
                "{name} has {} instructions with {} calls of helpers, of {} and {} in {BUDGET}: packets pay for them",
                size.length, size.calls, most.length, most.calls
            ));
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

/// Reads `program instructions length calls` lines; `#` begins a comment.
fn parse_budget(text: &str) -> Result<BTreeMap<String, Limit>> {
    let mut budget = BTreeMap::new();
    for line in text
        .lines()
        .map(|line| line.split('#').next().unwrap_or_default().trim())
    {
        if line.is_empty() {
            continue;
        }
        let words: Vec<&str> = line.split_whitespace().collect();
        let [name, instructions, length, calls] = words[..] else {
            bail!("{BUDGET}: not `program instructions length calls`: {line}")
        };
        let instructions = instructions.parse()?;
        if instructions > MOST_INSTRUCTIONS {
            bail!("{BUDGET}: {name} may walk {MOST_INSTRUCTIONS} instructions at most");
        }
        let size = Size {
            length: length.parse()?,
            calls: calls.parse()?,
        };
        budget.insert(name.to_owned(), Limit { instructions, size });
    }
    Ok(budget)
}

/// Reads costs from libbpf's log: the name of a program, its functions and calls, then the verifier's statistics.
fn parse_log(log: &str) -> BTreeMap<String, Cost> {
    let mut costs = BTreeMap::new();
    let mut program = None;
    let mut functions = Functions::default();
    for line in log.lines() {
        if let Some((instruction, is_call)) = instruction(line) {
            functions.seen.insert(instruction);
            if is_call {
                functions.helpers.insert(instruction);
            }
        }
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
            let size = Size {
                length: functions.seen.len(),
                calls: functions.helpers.len(),
            };
            let cost = Cost {
                instructions,
                stack,
                size,
            };
            costs.insert(name.to_owned(), cost);
        }
    }
    costs
}

/// An instruction that the verifier looks at, and whether it calls a helper: `12: (85) call bpf_map_lookup_elem#1`.
fn instruction(line: &str) -> Option<(u64, bool)> {
    let (number, rest) = line.split_once(": (")?;
    let is_call = rest.starts_with("85) call ") && !rest.starts_with("85) call pc");
    Some((number.parse().ok()?, is_call))
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
                    stack: 96,
                    size: Size::default()
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
    fn each_instruction_and_each_call_of_a_helper_counts_once() {
        let log = "libbpf: prog 'lb': -- BEGIN PROG LOAD LOG --\n0: (bf) r6 = r1\n1: (85) call bpf_ktime_get_ns#5\n\
                   2: (85) call pc+1\n1: (85) call bpf_ktime_get_ns#5\nfrom 3 to 7: R0=1\nprocessed 9 insns (limit 1000000)\n";
        assert_eq!(parse_log(log)["lb"].size, Size { length: 3, calls: 1 });
    }

    #[test]
    fn budgets_are_read_with_comments() {
        let budget =
            parse_budget("# program instructions length calls\nlb 20000 900 12 # kernel 6.18\n\n").unwrap();
        let size = Size {
            length: 900,
            calls: 12,
        };
        let limit = Limit {
            instructions: 20_000,
            size,
        };
        assert_eq!(budget, BTreeMap::from([("lb".to_owned(), limit)]));
        assert!(parse_budget("lb 20000\n").is_err());
        assert!(parse_budget("lb 30001 1 1\n").is_err());
    }
}
