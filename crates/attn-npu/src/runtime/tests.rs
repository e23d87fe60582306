//! Sessions on a device of this process, which runs the portable kernel.

use std::{
    cell::Cell,
    sync::{Arc, Mutex},
    time::Duration,
};

use attn_fixed::{Heads, Inputs, Mask, Parameters, Scales, attend, scratch_len};

use super::{
    Artefacts, CommandState, Identity, Session, SessionError, Step,
    xrt::{
        BufferKind, DATA, Direction, Xrt,
        fake::{Event, Fake, Fault},
    },
};
use crate::{
    design::{Design, Device, Form},
    layout::Line,
};

const TILES: Design =
    Design { device: Device::Npu1, columns: 2, rows: 2, dim: 64, depth: 2, form: Form::Tiles { per_core: 2 } };
const SEQUENCE: Design = Design {
    device: Device::Npu1,
    columns: 2,
    rows: 3,
    dim: 48,
    depth: 2,
    form: Form::Sequence { heads: 4, queries: 200, keys: 300 },
};

type Opened = (Result<Session, SessionError>, Arc<Mutex<Vec<Event>>>, Vec<Step>);

fn open(design: Design, fault: Option<Fault>) -> Opened {
    let (fake, events) = Fake::new(design, fault);
    let artefacts = Artefacts {
        path: "test.xclbin".into(),
        xclbin: vec![1; 10],
        uuid: crate::xclbin::Uuid([0; 16]),
        instructions: vec![0; 20],
        design,
    };
    let name = || "fake".to_owned();
    let identity = Identity { device: name(), driver: name(), firmware: name(), xrt: name(), xclbin: name() };
    let mut steps = Vec::new();
    let session =
        Session::on(Box::new(fake), &artefacts, identity, Duration::from_millis(1), &mut |step, _| steps.push(step));
    (session, events, steps)
}

/// Heads of numbers that look like noise, each with its own scales.
struct Case {
    parameters: Vec<Parameters>,
    kv_heads: usize,
    tensors: [Vec<i8>; 3],
}

impl Case {
    fn new(heads: usize, kv_heads: usize, queries: usize, keys: usize, dim: usize) -> Self {
        let numbers = |salt: usize, len: usize| -> Vec<i8> {
            (0..len).map(|i| ((i + salt).wrapping_mul(2_654_435_761) >> 13) as i8).collect()
        };
        let parameters = (0..heads).map(|head| {
            let scale = 0.01 + head as f32 / 1000.0;
            Parameters::new(dim, Scales { query: scale, key: 0.01, value: 1.0, out: 0.3 }).expect("in range")
        });
        let tensors =
            [numbers(1, heads * queries * dim), numbers(2, kv_heads * keys * dim), numbers(3, kv_heads * keys * dim)];
        Self { parameters: parameters.collect(), kv_heads, tensors }
    }

    fn heads<'a>(&'a self, masks: &'a [Mask<'a>]) -> Heads<'a> {
        let [query, key, value] = &self.tensors;
        let inputs = Inputs { query, key, value };
        Heads { parameters: &self.parameters, masks, kv_heads: self.kv_heads, inputs }
    }

    fn expected(&self, masks: &[Mask<'_>]) -> Vec<i8> {
        let heads = self.heads(masks);
        let mut out = vec![0; self.tensors[0].len()];
        let len = out.len() / masks.len();
        for (h, out) in out.chunks_exact_mut(len.max(1)).enumerate() {
            let head = heads.head(h);
            let mut scratch = vec![0; scratch_len(head.parameters.dim())];
            attend(head.parameters, head.inputs, head.mask, &mut scratch, out).expect("a valid head");
        }
        out
    }
}

#[test]
fn every_head_has_the_bits_of_the_specification() {
    for (design, heads, kv_heads, queries, keys, dim) in [
        (TILES, 1, 1, 64, 64, 64),
        (TILES, 3, 3, 300, 17, 40),
        (TILES, 4, 2, 1, 64, 8),
        (SEQUENCE, 1, 1, 1, 1, 8),
        (SEQUENCE, 4, 4, 200, 300, 48),
        (SEQUENCE, 8, 2, 70, 320, 33),
        (SEQUENCE, 6, 1, 65, 129, 48),
        (SEQUENCE, 5, 5, 500, 64, 16),
    ] {
        let session = open(design, None).0;
        let mut session = session.expect("a session");
        let case = Case::new(heads, kv_heads, queries, keys, dim);
        let masks = (0..heads).map(|head| match head % 3 {
            0 => Mask::new(),
            1 => Mask::new().causal(head),
            _ => Mask::new().valid_keys(keys / 2).causal(keys),
        });
        let masks: Vec<_> = masks.collect();
        let mut out = vec![77; case.tensors[0].len()];
        // Twice, as buffers are used again.
        for _ in 0..2 {
            let done = Cell::new(0);
            session.attend(case.heads(&masks), &mut out, &|queries| done.set(done.get() + queries)).expect("valid");
            assert_eq!(done.get(), heads * queries);
            assert!(out == case.expected(&masks), "{design:?} {heads} {kv_heads} {queries} {keys} {dim}");
            out.fill(78);
        }
    }
}

/// What a dispatch left does not get into the next one, which uses less of the buffers, or more.
#[test]
fn sizes_change_from_call_to_call() {
    for design in [TILES, SEQUENCE] {
        let mut session = open(design, None).0.expect("a session");
        for (heads, queries, keys) in
            [(1, 1, 1), (8, 64, 64), (2, 3, 40), (1, 200, 9), (12, 70, 64), (1, 1, 2), (4, 4, 4)]
        {
            let case = Case::new(heads, heads, queries, keys, 48);
            let masks = vec![Mask::new(); heads];
            let mut out = vec![77; case.tensors[0].len()];
            session.attend(case.heads(&masks), &mut out, &|_| ()).expect("valid");
            assert!(out == case.expected(&masks), "{design:?} {heads} {queries} {keys}");
        }
    }
}

#[test]
fn a_session_is_opened_in_steps() {
    let (session, events, steps) = open(SEQUENCE, None);
    let session = session.expect("a session");
    assert_eq!(steps, [Step::Context, Step::Buffers, Step::SelfTest]);
    assert_eq!(session.capacity(), 4 * 6);
    assert_eq!(session.max_keys(), 320);
    let buffer = Event::Buffer;
    let expected = [
        Event::Load(10, "MLIR_AIE".to_owned()),
        // Instructions, and twice queries, blocks and outputs.
        buffer(1),
        buffer(3),
        buffer(4),
        buffer(5),
        buffer(3),
        buffer(4),
        buffer(5),
        Event::ToDevice(0),
        // The self-test.
        Event::ToDevice(1),
        Event::ToDevice(2),
        Event::Start(0),
        Event::ToDevice(4),
        Event::ToDevice(5),
        Event::Start(1),
        Event::Wait(0),
        Event::FromDevice(3),
        Event::Wait(1),
        Event::FromDevice(6),
        Event::Drop,
    ];
    drop(session);
    assert_eq!(*events.lock().unwrap(), expected);
}

/// The next dispatch is packed and started before the last one is waited for.
#[test]
fn two_dispatches_are_under_way() {
    let (session, events, _) = open(TILES, None);
    let mut session = session.expect("a session");
    events.lock().unwrap().clear();
    let case = Case::new(1, 1, 64 * 8 * 3, 64, 64);
    let mut out = vec![0; case.tensors[0].len()];
    session.attend(case.heads(&[Mask::new()]), &mut out, &|_| ()).expect("valid");
    let order: Vec<_> =
        events.lock().unwrap().drain(..).filter(|e| matches!(e, Event::Start(_) | Event::Wait(_))).collect();
    let (start, wait) = (Event::Start, Event::Wait);
    assert_eq!(order, [start(0), start(1), wait(0), start(0), wait(1), wait(0)]);
    let times = session.take_times();
    assert_eq!(times.dispatches, 3);
    assert!(times.total >= times.pack + times.submit + times.wait + times.unpack);
    assert!(times.pack > Duration::ZERO && times.device > Duration::ZERO && times.wait <= times.device);
    assert_eq!(session.take_times(), super::Times::default());
}

#[test]
fn tickets() {
    let mut session = open(TILES, None).0.expect("a session");
    let mut other = open(TILES, None).0.expect("a session");
    let cases = [Case::new(2, 2, 64, 64, 64), Case::new(1, 1, 100, 30, 24), Case::new(1, 1, 64 * 9, 64, 64)];
    let masks = [Mask::new(); 2];
    let expected = |case: usize| cases[case].expected(&masks[..cases[case].parameters.len()]);
    let heads = |case: usize| cases[case].heads(&masks[..cases[case].parameters.len()]);
    let first = session.submit(heads(0)).expect("room");
    let second = session.submit(heads(1)).expect("room");
    let mut outs = [vec![1; expected(0).len()], vec![2; expected(1).len()]];
    assert_eq!(session.submit(heads(0)).expect_err("two"), SessionError::Busy);
    assert_eq!(session.attend(heads(0), &mut outs[0], &|_| ()), Err(SessionError::Busy));
    assert_eq!(other.wait(&first, &mut outs[0]), Err(SessionError::Ticket));
    let short = outs[1].len() - 1;
    let error = session.wait(&second, &mut outs[1][..short]).expect_err("short");
    assert_eq!(error.to_string(), "output: got 2399 elements, expected 2400");
    // In any order.
    session.wait(&second, &mut outs[1]).expect("a result");
    assert_eq!(outs[1], expected(1));
    assert_eq!(session.wait(&second, &mut outs[1]), Err(SessionError::Ticket));
    let third = session.submit(heads(1)).expect("room");
    session.wait(&first, &mut outs[0]).expect("a result");
    assert_eq!(outs[0], expected(0));
    session.wait(&third, &mut outs[1]).expect("a result");
    assert_eq!(
        session.submit(heads(2)).expect_err("9 tiles"),
        SessionError::Room { what: "dispatches", got: 2, most: 1 }
    );
    // Nobody waits for these.
    for _ in 0..5 {
        _ = session.submit(heads(0)).expect("room");
    }
    session.attend(heads(1), &mut outs[1], &|_| ()).expect("room");
    assert_eq!(outs[1], expected(1));
    let kept = session.submit(heads(0)).expect("room");
    _ = session.submit(heads(1)).expect("room");
    let another = session.submit(heads(1)).expect("room");
    session.wait(&kept, &mut outs[0]).expect("a result");
    session.wait(&another, &mut outs[1]).expect("a result");
    assert_eq!(outs, [expected(0), expected(1)]);
}

#[test]
fn what_there_is_no_room_for() {
    let mut session = open(SEQUENCE, None).0.expect("a session");
    let mut refuse = |case: Case, masks: &[Mask<'_>]| {
        let mut out = vec![77; case.tensors[0].len()];
        let error = session.attend(case.heads(masks), &mut out, &|_| ()).expect_err("no room");
        assert!(out.iter().all(|&x| x == 77));
        error.to_string()
    };
    assert_eq!(
        refuse(Case::new(1, 1, 1, 321, 48), &[Mask::new()]),
        "keys: got 321, expected at most 320, which is what the xclbin was built for"
    );
    assert_eq!(
        refuse(Case::new(1, 1, 1, 1, 49), &[Mask::new()]),
        "dimension: got 49, expected at most 48, which is what the xclbin was built for"
    );
    let allowed = [true; 6];
    assert!(refuse(Case::new(1, 1, 2, 3, 8), &[Mask::new().allowed(&allowed, 3)]).starts_with("mask of head 0"));
}

/// After a failure there are no results, whatever was under way; what still runs is never dropped.
#[test]
fn failures_close_the_session() {
    let case = Case::new(1, 1, 64 * 8 * 3, 64, 64);
    let mut out = vec![0; case.tensors[0].len()];
    let fail = |fault, out: &mut [i8]| {
        let (session, events, _) = open(TILES, Some(fault));
        let mut session = session.expect("the self-test is the first two dispatches");
        let error = session.attend(case.heads(&[Mask::new()]), out, &|_| ()).expect_err("a fault");
        assert_eq!(session.attend(case.heads(&[Mask::new()]), out, &|_| ()), Err(SessionError::Closed));
        assert_eq!(session.submit(case.heads(&[Mask::new()])).map(|_| ()), Err(SessionError::Closed));
        drop(session);
        let events = events.lock().unwrap();
        let is_kept = events.contains(&Event::KeepOpen);
        (error, is_kept)
    };
    let hang = SessionError::Hang { timeout: Duration::from_millis(1) };
    assert_eq!(fail(Fault::Hang(2), &mut out), (hang.clone(), true));
    assert_eq!(fail(Fault::Hang(4), &mut out), (hang, true));
    for state in [CommandState::ERROR, CommandState::ABORT, CommandState::TIMEOUT] {
        assert_eq!(
            fail(Fault::Failed(3, state), &mut out),
            (SessionError::Command { state, said: "said".to_owned() }, false)
        );
    }
    let error = super::XrtError { call: "start a run", text: "no".to_owned() };
    assert_eq!(fail(Fault::NotStarted(3), &mut out), (SessionError::Xrt(error), false));
}

#[test]
fn a_wrong_bit_is_no_session() {
    for (design, dispatch) in [TILES, SEQUENCE].into_iter().flat_map(|design| [(design, 0), (design, 1)]) {
        let error = open(design, Some(Fault::Wrong(dispatch))).0.err().expect("a wrong bit");
        let SessionError::WrongResult { wrong: 1, at: (0, 0, 5), got, expected, .. } = error else { panic!("{error}") };
        assert_eq!(got, expected ^ 1);
    }
    let (session, events, _) = open(TILES, Some(Fault::Hang(0)));
    assert!(matches!(session.err(), Some(SessionError::Hang { .. })));
    assert!(events.lock().unwrap().contains(&Event::KeepOpen));
}

#[test]
fn a_session_moves_between_threads() {
    const fn is_send<T: Send>() {}
    const { is_send::<Session>() }
}

/// Memory that two sides see, one after the other: an interpreter has a look, too (`cargo xtask sanitizer`).
#[test]
fn both_sides_of_buffers() {
    let (mut device, _) = Fake::new(TILES, None);
    let mut buffers = [65, 64].map(|bytes| device.buffer(DATA, bytes, BufferKind::Data).expect("memory"));
    assert_eq!(buffers.each_ref().map(|buffer| buffer.lines().len()), [2, 1]);
    for (buffer, bytes) in buffers.iter_mut().zip([65, 64]) {
        buffer.lines_mut().fill(Line([7; 64]));
        device.sync(buffer, bytes, Direction::ToDevice).expect("in range");
        buffer.lines_mut().fill(Line([8; 64]));
        device.sync(buffer, bytes, Direction::FromDevice).expect("in range");
    }
    for buffer in &buffers {
        assert!(buffer.lines().iter().all(|line| line.0 == [7; 64]));
    }
}
