//! Programs that decide by ranges of call numbers, in the place of libseccomp's long list of them.
//!
//! When the kernel loads a filter it translates each instruction, and tries the filter on each call of each of its
//! architectures, to remember what is always allowed (`seccomp_cache_prepare`, Linux 5.11). With the 1,060 instructions of
//! docker's profile that takes 1 ms of each start.
//!
//! What a program answers is found by running it on each architecture that it compares with and on each number next to one that it
//! compares with: between two of these nothing that it compares can change. Where it looks at anything else than architecture and
//! number, its own instructions go on. A program that does anything else before is left as it is.
use super::bpf::{
    JUMP, JUMP_EQUAL, JUMP_GREATER, JUMP_GREATER_OR_EQUAL, LOAD, OFFSET_ARCH, OFFSET_NR, RETURN, op,
};
use crate::sys::seccomp::Instruction;
use std::collections::BTreeSet;

/// The bits of an opcode that hold its class, and two of the classes.
const CLASS: u16 = 0x07;
const CLASS_JUMP: u16 = 0x05;
const CLASS_RETURN: u16 = 0x06;

/// What architecture and number alone decide.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// The program's answer.
    Answer(u32),
    /// That the instruction at this place, a load of something else, is the next.
    GoOn(usize),
}

/// The numbers from `first` on, up to the next range, have the same outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Range {
    first: u32,
    outcome: Outcome,
}

/// A new instruction, or a jump to an old one.
#[derive(Debug, Clone, Copy)]
enum Piece {
    New(Instruction),
    ToOld(usize),
}

/// The same program, shorter; `None` if it would not be, or does what is not understood here.
pub(super) fn shorten(program: &[Instruction]) -> Option<Vec<Instruction>> {
    by_ranges(program).filter(|short| short.len() < program.len())
}

/// The same program; `None` if it does what is not understood here.
pub(super) fn by_ranges(program: &[Instruction]) -> Option<Vec<Instruction>> {
    let constants = Constants::of(program)?;
    let ranges = |arch| {
        let mut ranges: Vec<Range> = Vec::new();
        for first in &constants.numbers {
            let outcome = outcome(program, arch, *first)?;
            if ranges.last().is_none_or(|last| last.outcome != outcome) {
                ranges.push(Range { first: *first, outcome });
            }
        }
        Some(ranges)
    };
    // All other architectures are the same to it: it only asks whether it is one of these.
    let other = ranges((0..=u32::MAX).find(|arch| !constants.archs.contains(arch))?)?;
    let mut pieces = vec![Piece::New(op(LOAD, OFFSET_ARCH, 0, 0))];
    for arch in &constants.archs {
        let own = ranges(*arch)?;
        if own == other {
            continue;
        }
        let body = body(&own)?;
        pieces.extend([Piece::New(op(JUMP_EQUAL, *arch, 1, 0)), Piece::New(jump(body.len())?)]);
        pieces.extend(body);
    }
    pieces.extend(body(&other)?);
    link(program, &pieces)
}

/// Over `distance` instructions.
fn jump(distance: usize) -> Option<Instruction> {
    Some(op(JUMP, u32::try_from(distance).ok()?, 0, 0))
}

/// Where the instruction at `place` may lead.
fn successors(program: &[Instruction], place: usize) -> Option<Vec<usize>> {
    let Instruction { code, jt, jf, k } = *program.get(place)?;
    let next = place + 1;
    Some(match code & CLASS {
        CLASS_RETURN => Vec::new(),
        CLASS_JUMP if code == JUMP => vec![next.checked_add(usize::try_from(k).ok()?)?],
        CLASS_JUMP => vec![next + usize::from(jt), next + usize::from(jf)],
        _ => vec![next],
    })
}

/// What a program compares with before it looks at anything else.
struct Constants {
    archs: BTreeSet<u32>,
    /// Each with its successor, and 0: between two of them no comparison changes its result.
    numbers: BTreeSet<u32>,
}

/// What the accumulator may hold; a program starts with none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Held {
    Nothing,
    Arch,
    Number,
    /// It depends on the way.
    Either,
}

impl Constants {
    fn of(program: &[Instruction]) -> Option<Constants> {
        let mut found = Constants { archs: BTreeSet::new(), numbers: BTreeSet::from([0]) };
        // Jumps only lead forward, so that each place is complete when it is come to.
        let mut held: Vec<Option<Held>> = vec![None; program.len()];
        *held.first_mut()? = Some(Held::Nothing);
        for place in 0..program.len() {
            let Some(mut holds) = held[place] else { continue };
            let Instruction { code, k, .. } = program[place];
            match (code, holds) {
                (LOAD, _) if k == OFFSET_ARCH => holds = Held::Arch,
                (LOAD, _) if k == OFFSET_NR => holds = Held::Number,
                // The arguments: from here on the program stays as it is.
                (LOAD, _) => continue,
                (JUMP | RETURN, _) => {}
                (JUMP_EQUAL, Held::Arch) => {
                    found.archs.insert(k);
                }
                (JUMP_EQUAL | JUMP_GREATER | JUMP_GREATER_OR_EQUAL, Held::Number) => {
                    found.numbers.insert(k);
                    found.numbers.extend(k.checked_add(1));
                }
                _ => return None,
            }
            for next in successors(program, place)? {
                let known = held.get_mut(next)?;
                *known = Some(if known.is_none_or(|known| known == holds) { holds } else { Held::Either });
            }
        }
        Some(found)
    }
}

/// Runs the program on a call until its arguments matter.
fn outcome(program: &[Instruction], arch: u32, number: u32) -> Option<Outcome> {
    let (mut place, mut accumulator) = (0_usize, 0_u32);
    loop {
        let Instruction { code, jt, jf, k } = *program.get(place)?;
        let branch = |holds: bool| usize::from(if holds { jt } else { jf });
        let skipped = match code {
            LOAD if k == OFFSET_ARCH => {
                accumulator = arch;
                0
            }
            LOAD if k == OFFSET_NR => {
                accumulator = number;
                0
            }
            LOAD => return Some(Outcome::GoOn(place)),
            RETURN => return Some(Outcome::Answer(k)),
            JUMP => usize::try_from(k).ok()?,
            JUMP_EQUAL => branch(accumulator == k),
            JUMP_GREATER => branch(accumulator > k),
            JUMP_GREATER_OR_EQUAL => branch(accumulator >= k),
            _ => return None,
        };
        place = place.checked_add(skipped)?.checked_add(1)?;
    }
}

/// The most ranges of a part. A condition has one byte for each of its distances, and a part has at most one
/// instruction for each range and one for each of their outcomes.
const PART: usize = 128;
/// With no more ranges than these, comparing with one after the other takes fewer instructions than halving: a condition
/// of which one side is the next instruction is one instruction to the kernel, any other is two.
const CHAIN: usize = 6;

/// Where a condition leads.
#[derive(Debug, Clone, Copy)]
enum Target {
    /// To the next instruction.
    Next,
    /// To the node at this place of its part.
    Node(usize),
    Outcome(Outcome),
}

/// `if number >= first: goto holds; goto fails`
#[derive(Debug, Clone, Copy)]
struct Node {
    first: u32,
    holds: Target,
    fails: Target,
}

/// The part of one architecture.
fn body(ranges: &[Range]) -> Option<Vec<Piece>> {
    let mut pieces = Vec::new();
    if ranges.len() > 1 {
        pieces.push(Piece::New(op(LOAD, OFFSET_NR, 0, 0)));
    }
    pieces.extend(parts(ranges)?);
    Some(pieces)
}

/// Parts that are short enough for the distances of conditions.
fn parts(ranges: &[Range]) -> Option<Vec<Piece>> {
    if ranges.len() <= PART {
        return part(ranges);
    }
    let (lower, upper) = ranges.split_at(ranges.len() / 2);
    let first = upper.first()?.first;
    let lower = parts(lower)?;
    let mut pieces = vec![Piece::New(op(JUMP_GREATER_OR_EQUAL, first, 0, 1)), Piece::New(jump(lower.len())?)];
    pieces.extend(lower);
    pieces.extend(parts(upper)?);
    Some(pieces)
}

/// Conditions, and behind them each outcome once.
fn part(ranges: &[Range]) -> Option<Vec<Piece>> {
    let mut nodes = Vec::with_capacity(ranges.len());
    tree(ranges, &mut nodes)?;
    let mut outcomes: Vec<Outcome> = Vec::new();
    for range in ranges {
        if !outcomes.contains(&range.outcome) {
            outcomes.push(range.outcome);
        }
    }
    let distance = |from: usize, target: Target| {
        let place = match target {
            Target::Next => from + 1,
            Target::Node(place) => place,
            Target::Outcome(wanted) => {
                nodes.len() + outcomes.iter().position(|outcome| *outcome == wanted)?
            }
        };
        u8::try_from(place.checked_sub(from + 1)?).ok()
    };
    let mut pieces = Vec::with_capacity(nodes.len() + outcomes.len());
    for (at, node) in nodes.iter().enumerate() {
        let (holds, fails) = (distance(at, node.holds)?, distance(at, node.fails)?);
        pieces.push(Piece::New(op(JUMP_GREATER_OR_EQUAL, node.first, holds, fails)));
    }
    pieces.extend(outcomes.into_iter().map(|outcome| match outcome {
        Outcome::Answer(answer) => Piece::New(op(RETURN, answer, 0, 0)),
        Outcome::GoOn(place) => Piece::ToOld(place),
    }));
    Some(pieces)
}

/// Halves the ranges until there are few, and goes through those from the top down.
fn tree(ranges: &[Range], nodes: &mut Vec<Node>) -> Option<()> {
    if ranges.len() > CHAIN {
        let (lower, upper) = ranges.split_at(ranges.len() / 2);
        let at = nodes.len();
        nodes.push(Node { first: upper.first()?.first, holds: Target::Next, fails: Target::Next });
        tree(lower, nodes)?;
        nodes[at].holds = Target::Node(nodes.len());
        return tree(upper, nodes);
    }
    let (lowest, above) = ranges.split_first()?;
    for (left, range) in above.iter().enumerate().rev() {
        let fails = if left == 0 { Target::Outcome(lowest.outcome) } else { Target::Next };
        nodes.push(Node { first: range.first, holds: Target::Outcome(range.outcome), fails });
    }
    Some(())
}

/// Puts behind the new instructions those of the old ones that they lead to, in their order: distances between them only
/// become shorter.
fn link(program: &[Instruction], pieces: &[Piece]) -> Option<Vec<Instruction>> {
    let mut wanted: BTreeSet<usize> = pieces
        .iter()
        .filter_map(|piece| if let Piece::ToOld(place) = piece { Some(*place) } else { None })
        .collect();
    for place in 0..program.len() {
        if wanted.contains(&place) {
            wanted.extend(successors(program, place)?);
        }
    }
    let old: Vec<usize> = wanted.into_iter().collect();
    let position = |place: usize| Some(pieces.len() + old.binary_search(&place).ok()?);
    let mut linked = Vec::with_capacity(pieces.len() + old.len());
    for (at, piece) in pieces.iter().enumerate() {
        linked.push(match piece {
            Piece::New(instruction) => *instruction,
            Piece::ToOld(place) => jump(position(*place)? - (at + 1))?,
        });
    }
    for place in &old {
        let instruction = *program.get(*place)?;
        let next = position(*place)? + 1;
        let distance = |target: usize| position(target)?.checked_sub(next);
        linked.push(match *successors(program, *place)?.as_slice() {
            [target] if instruction.code == JUMP => jump(distance(target)?)?,
            [holds, fails] => Instruction {
                jt: u8::try_from(distance(holds)?).ok()?,
                jf: u8::try_from(distance(fails)?).ok()?,
                ..instruction
            },
            _ => instruction,
        });
    }
    Some(linked)
}
