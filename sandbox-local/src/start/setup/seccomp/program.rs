//! Compiler from rules to a BPF program: a binary search over call numbers, with checks at the
//! leaves.
//!
//! Reference: Documentation/userspace-api/seccomp_filter.rst, linux/bpf_common.h.

/// Rule for one system call.
pub(super) struct Rule {
    pub(super) number: u32,
    pub(super) check: Check,
}

/// When to refuse; anything else is allowed. Arguments are compared by their low 32 bits, which
/// is all that the kernel looks at for those that are checked.
pub(super) enum Check {
    /// Always.
    Always(u16),
    /// If the argument has any of these bits.
    AnyBit { arg: u32, bits: u32, errno: u16 },
    /// If the masked argument is one of these.
    In {
        arg: u32,
        mask: u32,
        values: Vec<u32>,
        errno: u16,
    },
    /// If the argument has any of these bits, or is one of the values when masked.
    AnyBitOrIn {
        arg: u32,
        bits: u32,
        mask: u32,
        values: Vec<u32>,
        errno: u16,
    },
    /// If the first argument has any of its bits and the second any of its own.
    AnyBitOfBoth {
        first: u32,
        first_bits: u32,
        second: u32,
        second_bits: u32,
        errno: u16,
    },
    /// If the argument is none of these.
    NotIn {
        arg: u32,
        values: Vec<u32>,
        errno: u16,
    },
    /// For socket(2), a family and, two arguments on, a protocol. If the family is in no list, or
    /// the protocol not among those that its families have; `others` may have any.
    Protocols {
        families: Vec<(Vec<u32>, Vec<u32>)>,
        others: Vec<u32>,
        family_errno: u16,
        protocol_errno: u16,
    },
    /// If the first argument or the one after it is none of these.
    NotBothIn {
        first: u32,
        values: Vec<u32>,
        errno: u16,
    },
    /// If the first argument is not zero and the second, a pointer, is not null.
    NonZero { first: u32, second: u32, errno: u16 },
}

impl Check {
    /// Whether both refuse always, and in the same way.
    fn always_as(&self, other: &Self) -> bool {
        matches!((self, other), (Self::Always(one), Self::Always(another)) if one == another)
    }
}

/// `struct sock_filter`.
#[derive(Clone, Copy)]
struct Instruction {
    code: u16,
    jump_true: u8,
    jump_false: u8,
    value: u32,
}

const LOAD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
const JUMP: u16 = 0x05; // BPF_JMP | BPF_JA
const JUMP_EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
const JUMP_GREATER_EQUAL: u16 = 0x35; // BPF_JMP | BPF_JGE | BPF_K
const JUMP_ANY_BIT: u16 = 0x45; // BPF_JMP | BPF_JSET | BPF_K
const AND: u16 = 0x54; // BPF_ALU | BPF_AND | BPF_K
const RETURN: u16 = 0x06; // BPF_RET | BPF_K

const ALLOW: u32 = 0x7fff_0000; // SECCOMP_RET_ALLOW
const KILL: u32 = 0x8000_0000; // SECCOMP_RET_KILL_PROCESS
const ERRNO: u32 = 0x0005_0000; // SECCOMP_RET_ERRNO

/// Offsets in `struct seccomp_data`.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;

const fn low(arg: u32) -> u32 {
    16 + 8 * arg
}

const fn high(arg: u32) -> u32 {
    low(arg) + 4
}

fn op(code: u16, value: u32) -> Instruction {
    Instruction {
        code,
        jump_true: 0,
        jump_false: 0,
        value,
    }
}

fn jump(code: u16, value: u32, jump_true: u8, jump_false: u8) -> Instruction {
    Instruction {
        code,
        jump_true,
        jump_false,
        value,
    }
}

fn refuse(errno: u16) -> Instruction {
    op(RETURN, ERRNO | u32::from(errno))
}

/// The program in the kernel's byte layout.
pub(super) fn compile(arch: u32, x32_bit: Option<u32>, mut rules: Vec<Rule>) -> Vec<u8> {
    rules.sort_by_key(|rule| rule.number);
    let mut program = vec![
        op(LOAD, ARCH),
        jump(JUMP_EQUAL, arch, 1, 0),
        op(RETURN, KILL),
        op(LOAD, NUMBER),
    ];
    if let Some(bit) = x32_bit {
        program.push(jump(JUMP_ANY_BIT, bit, 0, 1));
        program.push(refuse(libc::ENOSYS as u16));
    }
    program.extend(search(&leaves(&rules)));
    program
        .iter()
        .flat_map(|i| {
            let [c0, c1] = i.code.to_ne_bytes();
            let [v0, v1, v2, v3] = i.value.to_ne_bytes();
            [c0, c1, i.jump_true, i.jump_false, v0, v1, v2, v3]
        })
        .collect()
}

/// Call numbers in a row, to which the same applies.
struct Leaf<'a> {
    first: u32,
    last: u32,
    check: &'a Check,
}

/// Rules by number as leaves, of which fewer are better: the kernel compiles the program at every
/// start of a sandbox.
fn leaves(rules: &[Rule]) -> Vec<Leaf<'_>> {
    let mut leaves: Vec<Leaf<'_>> = Vec::with_capacity(rules.len());
    for Rule { number, check } in rules {
        match leaves.last_mut() {
            Some(leaf) if leaf.last + 1 == *number && leaf.check.always_as(check) => {
                leaf.last = *number;
            }
            _ => leaves.push(Leaf {
                first: *number,
                last: *number,
                check,
            }),
        }
    }
    leaves
}

/// Decides the call number that is in the accumulator; every path ends in a return.
fn search(leaves: &[Leaf<'_>]) -> Vec<Instruction> {
    match leaves {
        [] => vec![op(RETURN, ALLOW)],
        [Leaf { first, last, check }] => {
            // A jump over one instruction always fits.
            let mut code = if first == last {
                vec![jump(JUMP_EQUAL, *first, 1, 0)]
            } else {
                vec![
                    jump(JUMP_GREATER_EQUAL, *first, 0, 1),
                    jump(JUMP_GREATER_EQUAL, last + 1, 0, 1),
                ]
            };
            code.push(op(RETURN, ALLOW));
            code.extend(decide(check));
            code
        }
        _ => {
            let (left, right) = leaves.split_at(leaves.len() / 2);
            let low = search(left);
            let mut code = match u8::try_from(low.len()) {
                Ok(distance) => vec![jump(JUMP_GREATER_EQUAL, right[0].first, distance, 0)],
                Err(_) => vec![
                    jump(JUMP_GREATER_EQUAL, right[0].first, 0, 1),
                    op(JUMP, low.len() as u32),
                ],
            };
            code.extend(low);
            code.extend(search(right));
            code
        }
    }
}

fn decide(check: &Check) -> Vec<Instruction> {
    match check {
        Check::Always(errno) => vec![refuse(*errno)],
        Check::AnyBit { arg, bits, errno } => vec![
            op(LOAD, low(*arg)),
            jump(JUMP_ANY_BIT, *bits, 0, 1),
            refuse(*errno),
            op(RETURN, ALLOW),
        ],
        Check::In {
            arg,
            mask,
            values,
            errno,
        } => {
            let mut code = vec![op(LOAD, low(*arg)), op(AND, *mask)];
            code.extend(member(values, op(RETURN, ALLOW), refuse(*errno)));
            code
        }
        Check::AnyBitOrIn {
            arg,
            bits,
            mask,
            values,
            errno,
        } => {
            let mut code = vec![
                op(LOAD, low(*arg)),
                jump(JUMP_ANY_BIT, *bits, 0, 1),
                refuse(*errno),
                op(AND, *mask),
            ];
            code.extend(member(values, op(RETURN, ALLOW), refuse(*errno)));
            code
        }
        Check::AnyBitOfBoth {
            first,
            first_bits,
            second,
            second_bits,
            errno,
        } => vec![
            op(LOAD, low(*first)),
            jump(JUMP_ANY_BIT, *first_bits, 0, 3),
            op(LOAD, low(*second)),
            jump(JUMP_ANY_BIT, *second_bits, 0, 1),
            refuse(*errno),
            op(RETURN, ALLOW),
        ],
        Check::NotIn { arg, values, errno } => {
            let mut code = vec![op(LOAD, low(*arg))];
            code.extend(member(values, refuse(*errno), op(RETURN, ALLOW)));
            code
        }
        Check::Protocols {
            families,
            others,
            family_errno,
            protocol_errno,
        } => {
            let mut code = vec![op(LOAD, low(0))];
            for (these, protocols) in families {
                let mut known = vec![op(LOAD, low(2))];
                let refused = refuse(*protocol_errno);
                known.extend(member(protocols, refused, op(RETURN, ALLOW)));
                // The lists are written in this crate and short: the distances fit.
                code.extend(skip_if_member(these));
                code.push(op(JUMP, known.len() as u32));
                code.extend(known);
            }
            code.extend(member(others, refuse(*family_errno), op(RETURN, ALLOW)));
            code
        }
        Check::NotBothIn {
            first,
            values,
            errno,
        } => {
            let mut code = vec![op(LOAD, low(*first))];
            // Over the refusal, to the second argument.
            code.extend(skip_if_member(values));
            code.push(refuse(*errno));
            code.push(op(LOAD, low(first + 1)));
            code.extend(member(values, refuse(*errno), op(RETURN, ALLOW)));
            code
        }
        Check::NonZero {
            first,
            second,
            errno,
        } => vec![
            op(LOAD, low(*first)),
            jump(JUMP_EQUAL, 0, 4, 0),
            op(LOAD, low(*second)),
            jump(JUMP_EQUAL, 0, 0, 3),
            op(LOAD, high(*second)),
            jump(JUMP_EQUAL, 0, 0, 1),
            op(RETURN, ALLOW),
            refuse(*errno),
        ],
    }
}

/// Goes on behind the instruction after these if the accumulator is one of the values.
fn skip_if_member(values: &[u32]) -> impl Iterator<Item = Instruction> + '_ {
    values.iter().enumerate().map(|(i, value)| {
        // The lists are written in this crate and short: the distance fits.
        let distance = (values.len() - i) as u8;
        jump(JUMP_EQUAL, *value, distance, 0)
    })
}

/// `found` if the accumulator is one of the values, `otherwise` if not.
fn member(values: &[u32], otherwise: Instruction, found: Instruction) -> Vec<Instruction> {
    let mut code: Vec<Instruction> = skip_if_member(values).collect();
    code.push(otherwise);
    code.push(found);
    code
}

#[cfg(test)]
pub(super) mod tests {
    //! A small interpreter for the programs, so that they can be tested without a kernel.

    impl super::Check {
        /// Judges these arguments straight from the rule's words: an errno if it refuses.
        pub(in super::super) fn refuses(&self, args: [u64; 6]) -> Option<u16> {
            let low = |arg: &u32| args[*arg as usize] as u32;
            let (refused, errno) = match self {
                Self::Always(errno) => (true, errno),
                Self::AnyBit { arg, bits, errno } => (low(arg) & bits != 0, errno),
                Self::In {
                    arg,
                    mask,
                    values,
                    errno,
                } => (values.contains(&(low(arg) & mask)), errno),
                Self::AnyBitOrIn {
                    arg,
                    bits,
                    mask,
                    values,
                    errno,
                } => {
                    let value = low(arg);
                    (value & bits != 0 || values.contains(&(value & mask)), errno)
                }
                Self::AnyBitOfBoth {
                    first,
                    first_bits,
                    second,
                    second_bits,
                    errno,
                } => {
                    let both = low(first) & first_bits != 0 && low(second) & second_bits != 0;
                    (both, errno)
                }
                Self::NotIn { arg, values, errno } => (!values.contains(&low(arg)), errno),
                Self::Protocols {
                    families,
                    others,
                    family_errno,
                    protocol_errno,
                } => {
                    let family = families.iter().find(|(these, _)| these.contains(&low(&0)));
                    match family {
                        Some((_, protocols)) => (!protocols.contains(&low(&2)), protocol_errno),
                        None => (!others.contains(&low(&0)), family_errno),
                    }
                }
                Self::NotBothIn {
                    first,
                    values,
                    errno,
                } => {
                    let both = values.contains(&low(first)) && values.contains(&low(&(first + 1)));
                    (!both, errno)
                }
                Self::NonZero {
                    first,
                    second,
                    errno,
                } => (low(first) != 0 && args[*second as usize] != 0, errno),
            };
            refused.then_some(*errno)
        }

        /// The values that the rule looks for.
        pub(in super::super) fn constants(&self) -> Vec<u32> {
            match self {
                Self::Always(_) | Self::NonZero { .. } => Vec::new(),
                Self::AnyBit { bits, .. } => vec![*bits],
                Self::In { mask, values, .. } => [values, &[*mask][..]].concat(),
                Self::AnyBitOrIn {
                    bits, mask, values, ..
                } => [values, &[*bits, *mask][..]].concat(),
                Self::AnyBitOfBoth {
                    first_bits,
                    second_bits,
                    ..
                } => vec![*first_bits, *second_bits],
                Self::NotIn { values, .. } | Self::NotBothIn { values, .. } => values.clone(),
                Self::Protocols {
                    families, others, ..
                } => {
                    let lists = families.iter();
                    let lists = lists.flat_map(|(these, protocols)| [these, protocols]);
                    lists.chain([others]).flatten().copied().collect()
                }
            }
        }
    }

    fn interpret(program: &[u8], arch: u32, number: u32, args: [u64; 6]) -> (u32, usize) {
        let mut data = Vec::new();
        data.extend(number.to_ne_bytes());
        data.extend(arch.to_ne_bytes());
        data.extend(0u64.to_ne_bytes());
        for arg in args {
            data.extend(arg.to_ne_bytes());
        }
        let word = |at: usize| u32::from_ne_bytes(data[at..at + 4].try_into().unwrap());
        let (mut at, mut accumulator, mut steps) = (0usize, 0u32, 0usize);
        loop {
            let i = &program[at * 8..at * 8 + 8];
            let value = u32::from_ne_bytes(i[4..8].try_into().unwrap());
            let branch = |yes: bool| 1 + usize::from(if yes { i[2] } else { i[3] });
            steps += 1;
            at += match u16::from_ne_bytes([i[0], i[1]]) {
                super::LOAD => {
                    accumulator = word(value as usize);
                    1
                }
                super::AND => {
                    accumulator &= value;
                    1
                }
                super::JUMP => 1 + value as usize,
                super::JUMP_EQUAL => branch(accumulator == value),
                super::JUMP_GREATER_EQUAL => branch(accumulator >= value),
                super::JUMP_ANY_BIT => branch(accumulator & value != 0),
                super::RETURN => return (value, steps),
                code => panic!("instruction {code:#x}"),
            };
        }
    }

    pub(in super::super) fn run(program: &[u8], arch: u32, number: u32, args: [u64; 6]) -> u32 {
        interpret(program, arch, number, args).0
    }

    pub(in super::super) fn steps(program: &[u8], arch: u32, number: u32) -> usize {
        interpret(program, arch, number, [0; 6]).1
    }
}
