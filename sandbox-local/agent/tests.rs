//! The agent's decisions, on a fake kernel: whose processes a kill reaches, when it is given up,
//! what a freeze lets go, and what a host that makes no sense gets.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking, helpers too"
)]

use crate::freeze;
use crate::kill::{self, KillState};
use crate::play::{Handles, Player};
use crate::proc::{self, Mark};
use crate::protocol::plan::{HEADER, NO_SLOT, OP_CALL, OP_TRY, Op};
use crate::protocol::{MAX_RUNNING, MAX_SLOTS, Message, killed, reply, request, stage};
use crate::spawn;
use crate::sys::fake::{PLAN_CALL, PROC, Process, never_fails, world};
use crate::sys::{Errno, SIGCONT, SIGKILL, SIGSTOP, slot};
use crate::table::{Exec, Table};

const TREE: u64 = 77;
const OTHER: u64 = 88;
/// Of the hash of a freeze.
const KEY: [u64; 2] = [1, 2];

/// A table with a command of each tree, whose main processes are 10 and 20.
fn two_commands() -> (Box<Table>, Box<KillState>) {
    let mut table = Box::new(Table::new());
    for (id, pid, mark) in [(1, 10, TREE), (2, 20, OTHER)] {
        table.insert(Exec::starting(id, pid, slot::SLOTS + 1, false));
        let exec = table.find(id).unwrap();
        exec.mark = mark;
        exec.slot = 0;
        world(|world| world.processes.insert(pid, Process::new(pid, mark)));
    }
    (table, Box::new(KillState::new()))
}

/// Kills the first command's tree to the end; the flags of the answer.
fn kill_first(table: &mut Table, state: &mut KillState) -> u32 {
    never_fails(kill::begin(table, state, 1));
    for _ in 0..1_000_000 {
        reap(table);
        never_fails(kill::step(table, state, PROC));
        if !state.is_active() {
            let answer = world(|world| world.sent.pop()).unwrap();
            assert_eq!((answer.kind, answer.exec), (reply::TREE_KILLED, 1));
            return answer.flags;
        }
        world(|world| world.now += 1);
    }
    panic!("the kill does not end");
}

fn reap(table: &mut Table) {
    for (pid, _) in world(|world| std::mem::take(&mut world.ended)) {
        if let Some(exec) = table.find_main(pid) {
            let id = exec.id;
            table.ended(id);
        }
    }
}

fn alive() -> Vec<i32> {
    world(|world| world.processes.keys().copied().collect())
}

#[test]
fn a_kill_finds_daemons_and_leaves_other_trees_alone() {
    let (mut table, mut state) = two_commands();
    world(|world| {
        // In a session of its own, and one with the number of another's main process plus one.
        world.processes.insert(11, Process::new(11, TREE));
        world.processes.insert(21, Process::new(20, OTHER));
        world.processes.insert(500, Process::new(500, TREE));
    });
    assert_eq!(kill_first(&mut table, &mut state), 0);
    assert_eq!(alive(), [20, 21]);
}

#[test]
fn a_fork_bomb_that_outruns_the_search_has_everything_killed_and_that_is_said() {
    let (mut table, mut state) = two_commands();
    world(|world| {
        let bomb = Process {
            respawns: u32::MAX,
            ..Process::new(12, TREE)
        };
        world.processes.insert(12, bomb);
    });
    assert_eq!(kill_first(&mut table, &mut state), killed::EVERYTHING);
    assert!(alive().is_empty());
    assert!(world(|world| world.signals.contains(&(-1, SIGKILL))));
}

#[test]
fn a_tree_that_grows_only_for_a_moment_is_no_bomb() {
    let (mut table, mut state) = two_commands();
    world(|world| {
        let few = Process {
            respawns: 5,
            ..Process::new(12, TREE)
        };
        world.processes.insert(12, few);
    });
    assert_eq!(kill_first(&mut table, &mut state), 0);
    assert_eq!(alive(), [20]);
}

#[test]
fn what_hides_from_its_init_is_killed_and_that_is_said() {
    let (mut table, mut state) = two_commands();
    world(|world| {
        let hidden = Process {
            is_readable: false,
            ..Process::new(30, OTHER)
        };
        world.processes.insert(30, hidden);
    });
    assert_eq!(kill_first(&mut table, &mut state), killed::UNREADABLE);
    assert_eq!(alive(), [20]);
}

#[test]
fn a_process_whose_first_thread_has_ended_still_has_its_tree() {
    two_commands();
    world(|world| {
        let mut process = Process::new(40, TREE);
        process.threads = vec![b'Z', b'S'];
        world.processes.insert(40, process);
        let mut ended = Process::new(41, TREE);
        ended.threads = vec![b'Z'];
        world.processes.insert(41, ended);
        let mut dying = Process::new(42, TREE);
        dying.threads = vec![b'Z', b'Z'];
        world.processes.insert(42, dying);
    });
    let marks = [40, 41, 42, 43].map(|pid| proc::mark(PROC, pid));
    assert!(
        marks == [Mark::Known(TREE), Mark::Ended, Mark::Dying, Mark::Vanished],
        "the marks of a process, an ended, a dying and a missing one"
    );
}

#[test]
fn the_state_of_a_process_is_not_read_from_its_name() {
    two_commands();
    assert_eq!(proc::state(PROC, 10), Some(b'S'));
    assert_eq!(proc::state(PROC, 99), None);
}

#[test]
fn a_thaw_leaves_alone_what_a_guest_had_stopped() {
    let (mut table, _) = two_commands();
    let mut stopped = [0; 256];
    never_fails(crate::sys::kill(20, SIGSTOP));
    let still = freeze::freeze(&mut table, &mut stopped, PROC, KEY);
    assert!(never_fails(still).is_some_and(|stillness| stillness.lasts(PROC)));
    let states = || world(|world| [10, 20].map(|pid| world.processes[&pid].threads[0]));
    assert_eq!(states(), *b"TT");
    freeze::thaw(&mut stopped, PROC);
    assert_eq!(states(), *b"ST");
    assert!(!world(|world| world.signals.contains(&(20, SIGCONT))));
}

#[test]
fn a_process_that_ran_during_a_freeze_is_noticed() {
    let (mut table, _) = two_commands();
    let freeze = |table: &mut Table| {
        let still = freeze::freeze(table, &mut [0; 256], PROC, KEY);
        never_fails(still).unwrap_or_else(|| panic!("it does not stand still"))
    };
    let stillness = freeze(&mut table);
    assert!(stillness.lasts(PROC));
    let stillness = freeze(&mut table);
    // A timer continued it, and it is stopped again.
    world(|world| world.processes.get_mut(&20).unwrap().switches += 1);
    assert!(!stillness.lasts(PROC));
}

#[test]
fn a_process_that_has_just_set_its_state_is_noticed() {
    let (mut table, _) = two_commands();
    let still = freeze::freeze(&mut table, &mut [0; 256], PROC, KEY);
    let stillness = never_fails(still).unwrap();
    // It ran all the time, on a processor of its own, and is about to stop.
    world(|world| world.processes.get_mut(&20).unwrap().leaving = 1);
    assert!(!stillness.lasts(PROC));
}

#[test]
fn a_thaw_lets_go_what_was_continued_and_stopped_again_and_leaves_alone_what_is_traced() {
    let (mut table, _) = two_commands();
    let mut stopped = [0; 256];
    never_fails(crate::sys::kill(20, SIGSTOP));
    world(|world| {
        let process = world.processes.get_mut(&20).unwrap();
        process.continues_in = Some(1);
        let mut traced = Process::new(30, TREE);
        traced.threads = vec![b't'];
        world.processes.insert(30, traced);
    });
    let still = freeze::freeze(&mut table, &mut stopped, PROC, KEY);
    assert!(never_fails(still).is_some());
    assert_eq!(world(|world| world.processes[&20].threads[0]), b'T');
    freeze::thaw(&mut stopped, PROC);
    // A guest's other process continued it meanwhile: it must not stay stopped by this.
    assert_eq!(world(|world| world.processes[&20].threads[0]), b'S');
    // A debugger would see a signal that nothing in the sandbox sent.
    assert!(!world(|world| world.signals.contains(&(30, SIGCONT))));
}

#[test]
#[cfg_attr(miri, ignore = "three seconds of the fake clock take minutes")]
fn a_freeze_gives_up_on_what_never_stands_still() {
    let (mut table, _) = two_commands();
    world(|world| world.processes.get_mut(&10).unwrap().obeys = false);
    let start = world(|world| world.now);
    let still = never_fails(freeze::freeze(&mut table, &mut [0; 256], PROC, KEY));
    assert!(still.is_none());
    assert!(world(|world| world.now) - start >= 3000);
}

#[test]
fn what_waits_in_the_kernel_is_taken_to_stand_still_after_a_moment() {
    let (mut table, _) = two_commands();
    world(|world| {
        let process = world.processes.get_mut(&10).unwrap();
        process.obeys = false;
        process.threads = vec![b'D'];
    });
    let start = world(|world| world.now);
    assert!(never_fails(freeze::freeze(&mut table, &mut [0; 256], PROC, KEY)).is_some());
    assert!(world(|world| world.now) - start < 3000);
}

#[test]
#[cfg_attr(miri, ignore = "a million steps")]
fn a_full_table_refuses_and_forgets_nothing() {
    let mut table = Box::new(Table::new());
    for id in 1..=MAX_RUNNING as u64 {
        assert!(!table.is_full());
        table.insert(Exec::starting(id, id as i32 + 1, 0, false));
    }
    assert!(table.is_full());
    // One that has ended makes room and is known until the host says otherwise.
    table.ended(7);
    assert!(!table.is_full());
    assert!(table.find(7).is_some_and(|exec| exec.pid == 0));
    table.remove(7);
    assert!(table.find(7).is_none());
}

/// A plan of calls, and its data.
fn plan(ops: &[Op], data: &[u8]) -> &'static mut [u8] {
    let mut bytes = Vec::new();
    for word in [ops.len() as u32, 0, 0, 0] {
        bytes.extend(word.to_ne_bytes());
    }
    for op in ops {
        bytes.extend(op.encode());
    }
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    bytes.extend(data);
    Box::leak(bytes.into_boxed_slice())
}

fn call(kind: u8) -> Op {
    Op {
        kind,
        number: PLAN_CALL as u32,
        result: NO_SLOT,
        ..Op::default()
    }
}

fn play(ops: &[Op]) -> Option<Result<(), i32>> {
    let mut player = Player::new(plan(ops, &[0; 16]), [0; MAX_SLOTS], 0)?;
    for index in 0..ops.len() {
        match player.step(index)? {
            Ok(()) => {}
            Err(Errno(errno)) => return Some(Err(errno)),
        }
    }
    Some(Ok(()))
}

#[test]
fn a_plan_stops_at_a_failure_unless_that_is_tolerated() {
    assert_eq!(play(&[call(OP_CALL), call(OP_TRY)]), Some(Ok(())));
    world(|world| world.refused.insert(PLAN_CALL, 1));
    assert_eq!(play(&[call(OP_TRY)]), Some(Ok(())));
    assert_eq!(play(&[call(OP_TRY), call(OP_CALL)]), Some(Err(1)));
}

#[test]
fn a_plan_that_points_out_of_itself_is_refused() {
    let wrong = [
        Op {
            kind: 99,
            ..call(OP_CALL)
        },
        Op {
            arg_kinds: [9; 6],
            ..call(OP_CALL)
        },
        // Data behind the end, and a slot that is none.
        Op {
            arg_kinds: [1; 6],
            args: [16; 6],
            ..call(OP_CALL)
        },
        Op {
            arg_kinds: [1; 6],
            args: [u64::MAX; 6],
            ..call(OP_CALL)
        },
        Op {
            arg_kinds: [2; 6],
            args: [MAX_SLOTS as u64; 6],
            ..call(OP_CALL)
        },
        Op {
            result: MAX_SLOTS as u32,
            ..call(OP_CALL)
        },
        Op {
            kind: OP_TRY,
            arg_kinds: [9; 6],
            ..call(OP_CALL)
        },
    ];
    for op in wrong {
        assert_eq!(play(&[op]), None, "{op:?}");
    }
    // More ops than there are bytes.
    let bytes = plan(&[call(OP_CALL)], &[]);
    bytes[0] = 200;
    assert!(Player::new(bytes, [0; MAX_SLOTS], 0).is_none());
    assert!(Player::new(plan(&[], &[]), [0; MAX_SLOTS], 1).is_none());
    assert!(Player::new(&mut plan(&[], &[])[..HEADER - 1], [0; MAX_SLOTS], 0).is_none());
}

const HANDLES: Handles = Handles {
    proc: PROC,
    null: 9,
    host: 8,
};

/// A request to start the command `id` with this table of offsets and the strings "a" and "/".
fn start(table: &mut Table, id: u64, words: [u64; 5], fds: &[i32]) -> Option<Result<(), i32>> {
    let mut payload: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
    payload.extend(b"a\0/\0");
    let message = Message {
        kind: request::SPAWN,
        exec: id,
        a: payload.len() as u64,
        b: 1,
        d: 1,
        ..Message::default()
    };
    let mut bytes = message.encode().to_vec();
    bytes.extend(payload);
    world(|world| world.inbox.push_back((bytes, fds.to_vec(), false)));
    let (bytes, fds) = never_fails(slot::all()[0].receive(false));
    let message = Message::decode(bytes).unwrap();
    let inline = bytes.len() - Message::SIZE;
    let started = spawn::start(table, HANDLES, 0, &message, inline, fds)?;
    never_fails(spawn::settle(table));
    Some(started.map_err(|errno| errno.0))
}

/// One test, since slots are the agent's and not a thread's.
#[test]
fn a_command_is_started_answered_or_refused_and_its_descriptors_are_closed() {
    let mut table = Box::new(Table::new());
    let good = [40, 0, 0, 40, 42];
    let closed = || world(|world| std::mem::take(&mut world.closed));
    world(|world| world.next_pid = 30);
    assert_eq!(start(&mut table, 5, good, &[50, 51]), Some(Ok(())));
    assert_eq!(closed(), [50, 51]);
    assert!(
        table
            .find(5)
            .is_some_and(|exec| exec.pid == 30 && exec.mark == 5030)
    );
    // The same name again, too few and too many descriptors.
    assert_eq!(start(&mut table, 5, good, &[50, 51]), None);
    assert_eq!(start(&mut table, 6, good, &[50]), None);
    assert_eq!(start(&mut table, 6, good, &[50, 51, 52]), None);
    assert_eq!(closed(), [50, 51, 50, 50, 51, 52]);
    // Offsets into the table, behind the end, where the end of a list must be, and none at all.
    for (at, offset) in [(0, 39), (0, 44), (3, u64::MAX), (1, 40), (2, 40), (4, 0)] {
        let mut words = good;
        words[at] = offset;
        assert_eq!(start(&mut table, 6, words, &[50, 51]), None, "{words:?}");
        assert_eq!(closed(), [50, 51]);
        assert!(!slot::all()[0].is_busy());
    }
    // No process can be made: the host hears of it.
    world(|world| {
        world.next_pid = -11;
        world.sent.clear();
    });
    assert_eq!(start(&mut table, 6, good, &[50, 51]), Some(Ok(())));
    let said = world(|world| world.sent.pop()).unwrap();
    assert_eq!(
        (said.kind, said.exec, said.a, said.b),
        (reply::FAILED, 6, u64::from(stage::FORK), 11)
    );
    closed();
    // A message that the kernel had to cut is refused, and what came with it closed.
    world(|world| {
        world
            .inbox
            .push_back((vec![0; Message::SIZE], vec![60, 61], true))
    });
    assert!(slot::all()[0].receive(false).is_err());
    assert_eq!(closed(), [60, 61]);
    assert!(!slot::all()[0].is_busy());
}
