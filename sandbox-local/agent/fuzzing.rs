//! Inputs that can be anything, for the agent's reading of requests and of plans, on the fake
//! kernel. Only in tests.

use sandbox_testkit::fuzz::attack;

use crate::kill::KillState;
use crate::play::{Handles, Player};
use crate::protocol::plan::{ARG_DATA, HEADER, NO_SLOT, OP_CALL, OP_STORE_ADDRESS, OP_TRY, Op};
use crate::protocol::{MAX_SLOTS, Message, put, request, spawn};
use crate::serve;
use crate::sys::fake::{PLAN_CALL, PROC, World, world};
use crate::sys::slot;
use crate::sys::state::Memory;
use crate::table::Table;

/// A message of the host, with up to seven descriptors, twice: what it leaves must not harm the next.
/// Each descriptor is closed again.
fn receive(bytes: &[u8]) {
    // The last: tests use the first.
    let index = slot::SLOTS - 1;
    let Some(slot) = slot::all().last() else {
        return;
    };
    let handles = Handles {
        proc: PROC,
        null: 9,
        host: 8,
    };
    let mut memory = Box::new(Memory {
        table: Table::new(),
        kill: KillState::new(),
        stopped: [0; 256],
        stillness: None,
    });
    let fds: Vec<i32> = (50..50 + (bytes.len() % 8) as i32).collect();
    for pid in [30, 31] {
        world(|world| {
            let inbox = [(bytes.to_vec(), fds.clone(), false)].into();
            *world = World::default();
            world.inbox = inbox;
            world.next_pid = pid;
            world.is_lenient = true;
        });
        let _ = serve::receive(&mut memory, handles, index);
        let mut closed = world(|world| std::mem::take(&mut world.closed));
        closed.retain(|fd| fds.contains(fd));
        closed.sort_unstable();
        assert_eq!(closed, fds, "descriptors that came");
        if !slot.is_running() {
            slot.release();
        }
    }
    assert!(!slot.is_busy(), "a slot that nothing uses");
}

/// A plan of the host, with every call one that has no effect.
fn play(bytes: &[u8]) {
    let mut bytes = bytes.to_vec();
    for at in (HEADER..bytes.len().saturating_sub(Op::SIZE - 1)).step_by(Op::SIZE) {
        if let Some(op) = bytes.get_mut(at..at + Op::SIZE) {
            put(op, 8, &(PLAN_CALL as u32).to_ne_bytes());
        }
    }
    let len = bytes.len();
    let ops = crate::protocol::get_u32(&bytes, 0).unwrap_or(0) as usize;
    for held in [0, 3] {
        let Some(mut player) = Player::new(&mut bytes, [0; MAX_SLOTS], held) else {
            continue;
        };
        // Not those behind the last one: what is stored there would be taken for a call.
        for index in 0..ops {
            let _ = player.step(index);
        }
        let _ = player.try_all();
        assert!(player.findings().is_none_or(|(_, data)| data.len() <= len));
    }
}

fn message(kind: u32, flags: u32, payload: &[u8]) -> Vec<u8> {
    let message = Message {
        kind,
        flags,
        exec: 5,
        a: payload.len() as u64,
        b: 1,
        d: 1,
        ..Message::default()
    };
    [&message.encode(), payload].concat()
}

#[test]
fn requests_can_be_anything() {
    let mut table: Vec<u8> = [40_u64, 0, 0, 40, 42]
        .into_iter()
        .flat_map(u64::to_ne_bytes)
        .collect();
    table.extend(b"a\0/\0");
    // As many bytes more as it takes for the descriptors that go with it.
    let mut kept = vec![
        message(request::SPAWN, 0, &table),
        message(request::SPAWN, spawn::CONFIRM, &table),
        message(request::SPAWN, spawn::PAYLOAD | spawn::STDIN, &table),
    ];
    for kind in [
        request::SIGNAL,
        request::KILL_TREE,
        request::IDLE,
        request::FREEZE,
        request::THAW,
        request::SOCKET,
        request::PLAN,
    ] {
        kept.push(message(kind, 0, &[]));
    }
    let mut forget = message(request::FORGET, 0, &[0; 16]);
    forget[24] = 2;
    kept.push(forget);
    for count in 0..8 {
        let mut padded = kept[0].clone();
        while padded.len() % 8 != count {
            padded.push(0);
        }
        kept.push(padded);
    }
    let kept: Vec<&[u8]> = kept.iter().map(Vec::as_slice).collect();
    attack("agent-request", &kept, receive);
}

#[test]
fn plans_can_be_anything() {
    let op = |kind| Op {
        kind,
        result: NO_SLOT,
        arg_kinds: [ARG_DATA; 6],
        ..Op::default()
    };
    let plan = |ops: &[Op], exports: u32| {
        let mut bytes = Vec::new();
        for number in [ops.len() as u32, exports, 0, 0] {
            bytes.extend(number.to_ne_bytes());
        }
        ops.iter().for_each(|op| bytes.extend(op.encode()));
        bytes.extend([0; 64]);
        bytes
    };
    let kept = [
        plan(&[op(OP_CALL), op(OP_TRY), op(OP_STORE_ADDRESS)], 1),
        plan(&[], 0),
        plan(&[op(OP_CALL)], 8),
    ];
    let kept: Vec<&[u8]> = kept.iter().map(Vec::as_slice).collect();
    attack("agent-plan", &kept, play);
}
