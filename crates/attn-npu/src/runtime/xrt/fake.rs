//! A device of this process, for the tests of sessions: the portable kernel in the order of the design, when it is waited for.
#![allow(unsafe_code, reason = "memory of buffers")]

use std::{
    ptr::NonNull,
    sync::{Arc, Mutex},
    time::Duration,
};

use super::{Arguments, Buffer, BufferKind, CommandState, DATA, Direction, INSTRUCTIONS, RunState, Xrt, XrtError};
use crate::{
    design::{Design, Form},
    kernel::{EntryPoints, Kernel},
    layout::{Line, Output, State, found},
    runtime::{objects::Objects, plan::Room},
};

/// What happens to a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    Load(usize, String),
    Buffer(u32),
    ToDevice(usize),
    FromDevice(usize),
    Start(usize),
    Wait(usize),
    KeepOpen,
    Drop,
}

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The dispatch of this number never ends.
    Hang(usize),
    /// It ends in this state.
    Failed(usize, CommandState),
    /// One bit of its output is another one.
    Wrong(usize),
    /// It is not started.
    NotStarted(usize),
}

/// A device, and what it was told.
pub(crate) struct Fake {
    design: Design,
    kernel: EntryPoints,
    fault: Option<Fault>,
    events: Arc<Mutex<Vec<Event>>>,
    /// What is mapped, by the pointers that sessions have, too.
    memory: Vec<Buffer>,
    /// The same as the device sees it: what was synchronised.
    own: Vec<Vec<Line>>,
    /// The buffers of each run that is under way, and its number.
    runs: Vec<Option<(Vec<usize>, usize)>>,
    starts: usize,
}

impl Fake {
    pub(crate) fn new(design: Design, fault: Option<Fault>) -> (Self, Arc<Mutex<Vec<Event>>>) {
        let events = Arc::default();
        let kernel = Kernel::Portable.entry_points().expect("a compiler");
        let (memory, own, runs) = (Vec::new(), Vec::new(), Vec::new());
        (Self { design, kernel, fault, events: Arc::clone(&events), memory, own, runs, starts: 0 }, events)
    }

    fn note(&self, event: Event) {
        self.events.lock().expect("no panic before").push(event);
    }

    fn compute(&mut self, data: &[usize]) {
        let Self { design, kernel, own: memory, .. } = self;
        let room = Room::of(design);
        let bytes = Objects::new(room, design.dim).bytes();
        let lines = |argument: usize, parts: usize| bytes[argument] / size_of::<Line>() / parts;
        let queries = room.places * room.queries;
        let (out, last) = (&mut Output::default(), *data.last().expect("an output"));
        let out_lines = lines(bytes.len() - 1, queries);
        for number in 0..queries {
            let object = &memory[data[0]][number * lines(0, queries)..][..lines(0, queries)];
            if let Form::Tiles { .. } = design.form {
                kernel.tile(&found::tile(object), out);
            } else {
                let (query, state) = (found::query(object), &mut State::default());
                kernel.start(&query, state);
                let block_lines = lines(1, room.places * room.blocks);
                for block in 0..room.blocks {
                    let first = (number / room.queries * room.blocks + block) * block_lines;
                    kernel.absorb(&query, &found::block(&memory[data[1]][first..], design.dim), state);
                }
                kernel.finish(&query, state, out);
            }
            let object = out.lines();
            memory[last][number * out_lines..][..object.len()].copy_from_slice(object);
        }
    }
}

impl Xrt for Fake {
    fn load(&mut self, xclbin: &[u8], kernel: &str) -> Result<(), XrtError> {
        self.note(Event::Load(xclbin.len(), kernel.to_owned()));
        Ok(())
    }

    fn buffer(&mut self, argument: u32, bytes: usize, kind: BufferKind) -> Result<Buffer, XrtError> {
        assert_eq!(argument == INSTRUCTIONS, kind == BufferKind::Instructions);
        assert!(argument == INSTRUCTIONS || argument >= DATA);
        self.note(Event::Buffer(argument));
        let lines = bytes.div_ceil(size_of::<Line>());
        let map = NonNull::from(Box::leak(vec![Line([0x55; 64]); lines].into_boxed_slice())).cast();
        let index = self.memory.len();
        self.own.push(vec![Line([0x2a; 64]); lines]);
        // SAFETY: it lives as long as this, and is looked at by one side at a time.
        let [own, buffer] = [(); 2].map(|()| unsafe { Buffer::new(index, map, bytes) });
        self.memory.push(own);
        Ok(buffer)
    }

    fn sync(&mut self, buffer: &Buffer, bytes: usize, direction: Direction) -> Result<(), XrtError> {
        assert!(bytes <= size_of_val(buffer.lines()));
        let (host, own) = (&mut self.memory[buffer.index], &mut self.own[buffer.index]);
        let lines = bytes.div_ceil(size_of::<Line>());
        let event = match direction {
            Direction::ToDevice => {
                own[..lines].copy_from_slice(&host.lines()[..lines]);
                Event::ToDevice(buffer.index)
            }
            Direction::FromDevice => {
                host.lines_mut()[..lines].copy_from_slice(&own[..lines]);
                Event::FromDevice(buffer.index)
            }
        };
        self.note(event);
        Ok(())
    }

    fn run(&mut self) -> Result<usize, XrtError> {
        self.runs.push(None);
        Ok(self.runs.len() - 1)
    }

    fn start(&mut self, run: usize, Arguments { instructions, words, data }: Arguments<'_>) -> Result<(), XrtError> {
        assert_eq!((instructions.index, words), (0, 5));
        assert!(self.runs[run].is_none(), "it was waited for");
        self.note(Event::Start(run));
        if self.fault == Some(Fault::NotStarted(self.starts)) {
            return Err(XrtError { call: "start a run", text: "no".to_owned() });
        }
        self.runs[run] = Some((data.iter().map(|buffer| buffer.index).collect(), self.starts));
        self.starts += 1;
        Ok(())
    }

    fn wait(&mut self, run: usize, _: Duration) -> Result<RunState, XrtError> {
        self.note(Event::Wait(run));
        let (data, number) = self.runs[run].clone().expect("a run that was started");
        match self.fault {
            Some(Fault::Hang(bad)) if bad <= number => return Ok(RunState::Running),
            Some(Fault::Failed(bad, state)) if bad == number => {
                self.runs[run] = None;
                return Ok(RunState::Failed(state, "said".to_owned()));
            }
            _ => self.compute(&data),
        }
        if self.fault == Some(Fault::Wrong(number)) {
            self.own[*data.last().expect("an output")][0].0[5] ^= 1;
        }
        self.runs[run] = None;
        Ok(RunState::Completed)
    }

    fn keep_open(&mut self) {
        self.note(Event::KeepOpen);
        // As its memory must be there as long as the process.
        self.memory.clear();
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.note(Event::Drop);
        for buffer in &self.memory {
            // SAFETY: `buffer` had it from a box, and a session that drops this has no more use for it.
            drop(unsafe { Box::from_raw(buffer.lines.as_ptr()) });
        }
    }
}
