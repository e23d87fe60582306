//! Attention on an NPU, through XRT.
//!
//! A [`Session`] is a device, an xclbin with its instructions, and memory that both sides see, made once. It hands out no result
//! before the device has computed a tile on every core as [`attn_fixed`] does.
//!
//! # The way of a head
//! | step | module |
//! |---|---|
//! | the files that `attn npu build` left are read and compared with each other | `artefacts` |
//! | query objects and blocks of keys and values get their places in one dispatch or several | `plan` |
//! | they are packed into one of two sets of buffers, while the device works on the other | [`Session`] |
//! | the dispatch is started and waited for | `xrt` |
//!
//! ```no_run
//! use attn_fixed::{Heads, Inputs, Mask, Parameters, Scales};
//! use attn_npu::runtime::{Options, Session};
//!
//! let mut session = Session::open(&Options::new("npu/attn-tiles-array.xclbin"))?;
//! // Two heads of 64 queries and 64 keys, d = 64.
//! let (query, key, value) = ([1; 2 * 64 * 64], [2; 2 * 64 * 64], [3; 2 * 64 * 64]);
//! let parameters = [Parameters::new(64, Scales { query: 0.01, key: 0.01, value: 0.1, out: 0.1 })?; 2];
//! let inputs = Inputs { query: &query, key: &key, value: &value };
//! let heads = Heads { parameters: &parameters, masks: &[Mask::new(); 2], kv_heads: 2, inputs };
//! let mut out = [0; 2 * 64 * 64];
//! session.attend(heads, &mut out, &|_| ())?;
//! let times = session.take_times();
//! println!("{} on {}: {times}", out[0], session.identity());
//!
//! // The same, and something else meanwhile.
//! let ticket = session.submit(heads)?;
//! session.wait(&ticket, &mut out)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Threads
//! A session is [`Send`] and not [`Sync`]: it may move to another thread, and serves one at a time. Two threads take two sessions,
//! each of which takes one of the few hardware contexts of the device.

mod artefacts;
mod error;
mod objects;
mod plan;
mod self_test;
#[cfg(all(test, kernel))]
mod tests;
mod xrt;

pub use artefacts::Artefacts;
pub use error::{NoDevice, SessionError};
pub use xrt::{Binding, CommandState, XrtError};

use std::{
    fmt,
    path::PathBuf,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use attn_fixed::{AttentionError, BLOCK, Heads, Mask, Tensor};

use crate::{
    build::KERNEL,
    check_masks,
    design::Design,
    host::{self, Npu, Refused},
    layout::Line,
};
use objects::Objects;
use plan::{Plan, Room};
use xrt::{Arguments, Buffer, BufferKind, Direction, RunState, UNDER_WAY, Xrt};

/// Which device, and what it is to run.
#[derive(Clone, Debug)]
pub struct Options {
    /// The xclbin; instructions and manifest are beside it, as `attn npu build` leaves them.
    pub xclbin: PathBuf,
    /// The device's number, from 0 on.
    pub device: u32,
    /// How long a dispatch may take.
    pub timeout: Duration,
    /// How XRT is called; the first one that is built in if none is asked for.
    pub binding: Option<Binding>,
}

impl Options {
    /// The first device, with a timeout that is far more than any design takes.
    pub fn new(xclbin: impl Into<PathBuf>) -> Self {
        Self { xclbin: xclbin.into(), device: 0, timeout: Duration::from_secs(10), binding: None }
    }
}

/// The steps of opening a session, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// XRT is there.
    Xrt,
    /// The device is open.
    Device,
    /// The xclbin, its instructions and its manifest fit each other, this version, and the device.
    Files,
    /// The device gave a hardware context for the xclbin.
    Context,
    /// The buffers were made.
    Buffers,
    /// Every core computed a tile as specified.
    SelfTest,
}

impl Step {
    /// Every step.
    pub const ALL: [Self; 6] = [Self::Xrt, Self::Device, Self::Files, Self::Context, Self::Buffers, Self::SelfTest];
}

/// What computed a result: every number of a session is labelled with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// What the driver calls the device: `NPU Phoenix`.
    pub device: String,
    /// The driver and its version.
    pub driver: String,
    /// The firmware's version.
    pub firmware: String,
    /// XRT's version, and how it is called.
    pub xrt: String,
    /// The xclbin's file name and UUID.
    pub xclbin: String,
}

impl Identity {
    /// Whether there is no NPU behind it: the emulated driver's device says so in its name. Its times say nothing.
    #[must_use]
    pub fn is_emulated(&self) -> bool {
        self.device.contains("emulated")
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { device, driver, firmware, xrt, xclbin } = self;
        write!(f, "{device}, driver {driver}, firmware {firmware}, XRT {xrt}, {xclbin}")
    }
}

/// Where the time of a session went, since it was opened or the times were last taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Times {
    /// Dispatches that ended.
    pub dispatches: u64,
    /// End to end: within the session's functions, what overlaps counted once.
    pub total: Duration,
    /// Packing objects, on the host.
    pub pack: Duration,
    /// Making inputs visible to the device, and handing dispatches to the driver.
    pub submit: Duration,
    /// From a dispatch's start, or the end of the one before it, to when the host saw its end: what the device took at most, as seen
    /// from the host. XRT has no clock of the device.
    pub device: Duration,
    /// Waiting, with nothing else to do.
    pub wait: Duration,
    /// Making outputs visible to the host, and reading them.
    pub unpack: Duration,
}

impl fmt::Display for Times {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { dispatches, total, pack, submit, device, wait, unpack } = self;
        let each = |time: &Duration| time.div_f64((*dispatches).max(1) as f64);
        let [total, pack, submit, device, wait, unpack] = [total, pack, submit, device, wait, unpack].map(each);
        write!(
            f,
            "{dispatches} dispatches, {total:.1?} each: packed in {pack:.1?}, submitted in {submit:.1?}, {device:.1?} on the device at most \
             (waited for: {wait:.1?}), unpacked in {unpack:.1?}"
        )
    }
}

/// An NPU that is ready to attend.
pub struct Session {
    xrt: Box<dyn Xrt>,
    design: Design,
    room: Room,
    objects: Objects,
    identity: Identity,
    instructions: Buffer,
    words: u32,
    slots: [Slot; 2],
    /// The slot that is filled next: the older one.
    next: usize,
    timeout: Duration,
    times: Times,
    /// When the end of the last dispatch was seen.
    seen: Instant,
    is_closed: bool,
}

/// A dispatch under way: the session has the other one.
#[derive(Debug)]
#[must_use = "the results are those of `wait`"]
pub struct Ticket(Arc<()>);

/// A run with buffers of its own.
struct Slot {
    run: usize,
    /// In the order of the design's arguments: the last one is the output.
    data: Vec<Buffer>,
    under_way: Option<UnderWay>,
    /// Places from this one on are empty, and the device knows.
    filled: usize,
}

struct UnderWay {
    work: Work,
    /// Places whose outputs are read.
    places: usize,
    started: Instant,
    ticket: Arc<()>,
}

/// What a dispatch does.
#[derive(Clone, Copy)]
struct Work {
    plan: Plan,
    /// Which of the plan's.
    dispatch: usize,
    queries: usize,
    dim: usize,
}

impl Session {
    /// Opens the device, loads the xclbin, makes buffers, and has every core compute a tile, which is compared with the
    /// specification.
    ///
    /// # Errors
    /// What is missing, refused or wrong.
    pub fn open(options: &Options) -> Result<Self, SessionError> {
        Self::open_step_by_step(options, &mut |_, _| ())
    }

    /// The same; `done` is called with each step that was done, and what there is to say of it.
    ///
    /// # Errors
    /// As [`open`](Self::open): of the step after the last one that was done.
    pub fn open_step_by_step(options: &Options, done: &mut dyn FnMut(Step, &str)) -> Result<Self, SessionError> {
        let binding = options.binding.or(Binding::ALL.first().copied()).ok_or(SessionError::NotBuiltIn)?;
        binding.open_xrt().map_err(SessionError::NoXrt)?;
        let xrt = host::version_of_library("libxrt_coreutil").unwrap_or_else(|| "of unknown version".to_owned());
        let xrt_version = format!("{xrt} ({})", binding.name());
        done(Step::Xrt, &xrt_version);
        let xrt = binding.open(options.device).map_err(|error| missing(options.device, error))?;
        let npu = host::npus().unwrap_or_default().into_iter().nth(options.device as usize);
        let npu = npu.ok_or(SessionError::NoDevice { device: options.device, why: NoDevice::Hardware })?;
        let unknown = || "unknown".to_owned();
        let mut identity = Identity {
            device: npu.name.clone().unwrap_or_else(unknown),
            driver: format!(
                "{} {}",
                npu.driver.as_deref().unwrap_or(host::DRIVER),
                host::driver_version().unwrap_or_else(unknown)
            ),
            firmware: npu.firmware.clone().unwrap_or_else(unknown),
            xrt: xrt_version,
            xclbin: String::new(),
        };
        done(Step::Device, &format!("{} at {}", identity.device, npu.address));
        let artefacts = Artefacts::read(&options.xclbin)?;
        check_device(&npu, &artefacts.design)?;
        let name = options.xclbin.file_name().unwrap_or_default().to_string_lossy();
        identity.xclbin = format!("{name} {}", artefacts.uuid);
        done(Step::Files, &identity.xclbin);
        Self::on(xrt, &artefacts, identity, options.timeout, done)
    }

    /// The rest of it, on a device.
    fn on(
        mut xrt: Box<dyn Xrt>,
        artefacts: &Artefacts,
        identity: Identity,
        timeout: Duration,
        done: &mut dyn FnMut(Step, &str),
    ) -> Result<Self, SessionError> {
        let design = artefacts.design;
        let room = Room::of(&design);
        let objects = Objects::new(room, design.dim);
        let needed = locked_bytes(&design);
        let refused = |error: XrtError| diagnose(error, needed);
        xrt.load(&artefacts.xclbin, KERNEL).map_err(refused)?;
        done(Step::Context, &format!("one was free, for {}, {} cores", design.partition(), design.cores()));
        let mut buffer = |argument, bytes, kind| {
            xrt.buffer(argument, bytes, kind).map_err(|error| match diagnose(error, needed) {
                SessionError::Xrt(error) => SessionError::Allocation { bytes, error },
                other => other,
            })
        };
        let mut instructions = buffer(xrt::INSTRUCTIONS, artefacts.instructions.len(), BufferKind::Instructions)?;
        for (Line(line), bytes) in
            instructions.lines_mut().iter_mut().zip(artefacts.instructions.chunks(size_of::<Line>()))
        {
            for (to, &from) in line.iter_mut().zip(bytes) {
                *to = from.cast_signed();
            }
        }
        let mut data = || {
            let bytes = (xrt::DATA..).zip(objects.bytes());
            bytes.map(|(argument, bytes)| buffer(argument, bytes, BufferKind::Data)).collect::<Result<Vec<_>, _>>()
        };
        let data = [data()?, data()?];
        xrt.sync(&instructions, artefacts.instructions.len(), Direction::ToDevice).map_err(refused)?;
        let mut slot =
            |data| xrt.run().map(|run| Slot { run, data, under_way: None, filled: room.places }).map_err(refused);
        let [first, second] = data;
        let slots = [slot(first)?, slot(second)?];
        let mut session = Self {
            xrt,
            design,
            room,
            objects,
            identity,
            instructions,
            words: (artefacts.instructions.len() / 4) as u32,
            slots,
            next: 0,
            timeout,
            times: Times::default(),
            seen: Instant::now(),
            is_closed: false,
        };
        let bytes: usize = objects.bytes().into_iter().sum();
        done(Step::Buffers, &format!("two sets of {} KiB", bytes.div_ceil(1024)));
        session.self_test()?;
        done(Step::SelfTest, &format!("{} objects have the bits of the specification", 2 * session.capacity()));
        session.take_times();
        Ok(session)
    }

    /// What computes.
    #[must_use]
    pub const fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The program of the array.
    #[must_use]
    pub const fn design(&self) -> &Design {
        &self.design
    }

    /// Most keys that a head can have.
    #[must_use]
    pub const fn max_keys(&self) -> usize {
        self.room.blocks * BLOCK
    }

    /// Query objects of at most 64 queries that a dispatch has room for.
    #[must_use]
    pub const fn capacity(&self) -> usize {
        self.room.places * self.room.queries
    }

    /// Whether the design has room for heads of this dimension and so many keys, and the kernel takes these masks.
    ///
    /// # Errors
    /// The first one that is too large, or the first mask with a boolean part.
    pub fn check(&self, dim: usize, keys: usize, masks: &[Mask<'_>]) -> Result<(), SessionError> {
        for (what, got, most) in [("dimension", dim, self.design.dim), ("keys", keys, self.max_keys())] {
            if got > most {
                return Err(SessionError::Room { what, got, most });
            }
        }
        check_masks(masks).map_err(SessionError::Mask)
    }

    /// Where the time went since the session was opened, or since this was last called.
    pub fn take_times(&mut self) -> Times {
        std::mem::take(&mut self.times)
    }

    /// Writes `out`, `[heads, queries, dim]`, in as many dispatches as it takes: while the device works on one, the next one is packed.
    /// `progress` is called with a number of queries that were done.
    ///
    /// # Errors
    /// As [`Heads::check`] and [`check`](Self::check), or a dispatch that is under way: `out` is then untouched. What happens to a
    /// dispatch: `out` is then of no use, and the session closed.
    pub fn attend(&mut self, heads: Heads<'_>, out: &mut [i8], progress: &dyn Fn(usize)) -> Result<(), SessionError> {
        let start = Instant::now();
        let work = self.accept(heads, out.len())?;
        self.end_forgotten()?;
        if self.slots.iter().any(|slot| slot.under_way.is_some()) {
            return Err(SessionError::Busy);
        }
        for dispatch in 0..work.plan.dispatches() {
            if self.slots[self.next].under_way.is_some() {
                self.finish(self.next, out, progress)?;
            }
            self.begin(heads, Work { dispatch, ..work })?;
        }
        for _ in 0..self.slots.len() {
            if self.slots[self.next].under_way.is_some() {
                self.finish(self.next, out, progress)?;
            }
            self.next = 1 - self.next;
        }
        self.times.total += start.elapsed();
        Ok(())
    }

    /// Starts what one dispatch has room for, and comes back: at most two can be under way. One whose ticket was dropped is waited for
    /// here and by [`attend`](Self::attend), and its results with it are gone.
    ///
    /// # Errors
    /// As [`Heads::check`] and [`check`](Self::check); more heads or queries than fit a dispatch; two dispatches that are under way.
    pub fn submit(&mut self, heads: Heads<'_>) -> Result<Ticket, SessionError> {
        let start = Instant::now();
        let work = self.accept(heads, heads.inputs.query.len())?;
        self.end_forgotten()?;
        let (got, most) = (work.plan.dispatches(), 1);
        if got > most {
            return Err(SessionError::Room { what: "dispatches", got, most });
        }
        if self.slots[self.next].under_way.is_some() {
            return Err(SessionError::Busy);
        }
        let ticket = self.begin(heads, work)?;
        self.times.total += start.elapsed();
        Ok(Ticket(ticket))
    }

    /// Waits for a dispatch, and writes its results, `[heads, queries, dim]` as they were submitted.
    ///
    /// # Errors
    /// The ticket of another session; an output of another length, with which it can be waited for again; what happened to the dispatch.
    pub fn wait(&mut self, ticket: &Ticket, out: &mut [i8]) -> Result<(), SessionError> {
        let start = Instant::now();
        self.check_open()?;
        let is_its = |slot: &Slot| slot.under_way.as_ref().is_some_and(|it| Arc::ptr_eq(&it.ticket, &ticket.0));
        let slot = self.slots.iter().position(is_its);
        let slot = slot.ok_or(SessionError::Ticket)?;
        if let Some(UnderWay { work, .. }) = &self.slots[slot].under_way {
            let (got, expected) = (out.len(), work.plan.heads() * work.queries * work.dim);
            if got != expected {
                return Err(AttentionError::Length { tensor: Tensor::Out, got, expected }.into());
            }
        }
        self.finish(slot, out, &|_| ())?;
        // The one that is free is filled next.
        self.next = if self.slots[1 - slot].under_way.is_none() { self.next } else { slot };
        self.times.total += start.elapsed();
        Ok(())
    }

    fn check_open(&self) -> Result<(), SessionError> {
        if self.is_closed { Err(SessionError::Closed) } else { Ok(()) }
    }

    /// Checks everything that can be checked before there is anything to do.
    fn accept(&self, heads: Heads<'_>, out: usize) -> Result<Work, SessionError> {
        self.check_open()?;
        heads.check(out)?;
        let dim = heads.parameters[0].dim();
        let count = heads.parameters.len();
        let keys = heads.inputs.key.len() / (heads.kv_heads * dim);
        self.check(dim, keys, heads.masks)?;
        let queries = heads.inputs.query.len() / (count * dim);
        Ok(Work { plan: Plan::new(self.room, count, heads.kv_heads, queries), dispatch: 0, queries, dim })
    }

    /// Packs and starts a dispatch in the next slot, which is free.
    fn begin(&mut self, heads: Heads<'_>, work: Work) -> Result<Arc<()>, SessionError> {
        let start = Instant::now();
        let slot = &mut self.slots[self.next];
        let written = self.objects.pack(&mut slot.data, heads, work, slot.filled);
        slot.filled = work.plan.places(work.dispatch).count();
        let places = slot.filled;
        self.times.pack += start.elapsed();
        self.start(work, written, places)
    }

    /// Starts what is packed in the next slot: so many places were written, and the outputs of so many will be read.
    fn start(&mut self, work: Work, written: usize, places: usize) -> Result<Arc<()>, SessionError> {
        let packed = Instant::now();
        let Self { xrt, slots, instructions, words, .. } = self;
        let slot = &mut slots[self.next];
        let inputs = &slot.data[..slot.data.len() - 1];
        let arguments = Arguments { instructions, words: *words, data: &slot.data };
        let started = inputs
            .iter()
            .zip(self.objects.bytes_of(written))
            .try_for_each(|(buffer, bytes)| xrt.sync(buffer, bytes, Direction::ToDevice))
            .and_then(|()| xrt.start(slot.run, arguments));
        let started = started.map_err(SessionError::Xrt).inspect_err(|_| self.is_closed = true);
        started?;
        let now = Instant::now();
        self.times.submit += now - packed;
        let ticket = Arc::new(());
        UNDER_WAY.fetch_add(1, Ordering::SeqCst);
        slot.under_way = Some(UnderWay { work, places, started: now, ticket: Arc::clone(&ticket) });
        self.next = 1 - self.next;
        Ok(ticket)
    }

    /// Waits for dispatches whose tickets were dropped.
    fn end_forgotten(&mut self) -> Result<(), SessionError> {
        let is_forgotten = |slot: &Slot| slot.under_way.as_ref().is_some_and(|it| Arc::strong_count(&it.ticket) == 1);
        for slot in 0..self.slots.len() {
            if is_forgotten(&self.slots[slot]) {
                self.end(slot)?;
                self.next = slot;
            }
        }
        Ok(())
    }

    /// Waits for the dispatch of a slot, and writes its part of the output.
    fn finish(&mut self, slot: usize, out: &mut [i8], progress: &dyn Fn(usize)) -> Result<(), SessionError> {
        let Some(work) = self.end(slot)? else { return Ok(()) };
        let start = Instant::now();
        let queries = self.objects.unpack(&self.slots[slot].data, work, out);
        self.times.unpack += start.elapsed();
        progress(queries);
        Ok(())
    }

    /// Waits for the dispatch of a slot, if there is one: its output can be read then.
    fn end(&mut self, slot: usize) -> Result<Option<Work>, SessionError> {
        self.check_open()?;
        let ended = self.end_open(slot);
        self.is_closed |= ended.is_err();
        ended
    }

    fn end_open(&mut self, slot: usize) -> Result<Option<Work>, SessionError> {
        let Self { xrt, slots, timeout, .. } = self;
        let slot = &mut slots[slot];
        let Some(UnderWay { started, places, .. }) = &slot.under_way else { return Ok(None) };
        let bytes = self.objects.bytes_of(*places).pop().unwrap_or(0);
        // It may have waited for the one before.
        let (started, start) = ((*started).max(self.seen), Instant::now());
        let left = timeout.saturating_sub(started.elapsed());
        match xrt.wait(slot.run, left).map_err(SessionError::Xrt)? {
            RunState::Running => Err(SessionError::Hang { timeout: *timeout }),
            state => {
                let work = slot.under_way.take().map(|under_way| under_way.work);
                UNDER_WAY.fetch_sub(1, Ordering::SeqCst);
                if let RunState::Failed(state, said) = state {
                    return Err(SessionError::Command { state, said });
                }
                let now = Instant::now();
                self.times.wait += now - start;
                self.times.device += now - started;
                self.times.dispatches += 1;
                self.seen = now;
                let output = slot.data.last().expect("an output");
                xrt.sync(output, bytes, Direction::FromDevice).map_err(SessionError::Xrt)?;
                self.times.unpack += now.elapsed();
                Ok(work)
            }
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let mut is_under_way = false;
        for slot in 0..self.slots.len() {
            if let Some(under_way) = &self.slots[slot].under_way {
                let left = self.timeout.saturating_sub(under_way.started.max(self.seen).elapsed());
                match self.xrt.wait(self.slots[slot].run, left) {
                    Ok(RunState::Completed | RunState::Failed(..)) => _ = UNDER_WAY.fetch_sub(1, Ordering::SeqCst),
                    Ok(RunState::Running) | Err(_) => is_under_way = true,
                }
            }
        }
        // With a run that never ends XRT would end the process: rather a device that stays open as long as the process lives.
        if is_under_way {
            self.xrt.keep_open();
        }
    }
}

/// Bytes that the driver locks in memory for a session.
#[must_use]
pub fn locked_bytes(design: &Design) -> u64 {
    let sets = 2 * Objects::new(Room::of(design), design.dim).bytes().iter().sum::<usize>();
    host::CONTEXT_BYTES + sets as u64
}

/// Why a device was not opened.
fn missing(device: u32, error: XrtError) -> SessionError {
    let no_device = |why| SessionError::NoDevice { device, why };
    let Some(npu) = host::npus().unwrap_or_default().into_iter().nth(device as usize) else {
        return no_device(NoDevice::Hardware);
    };
    let Some(node) = npu.node else { return no_device(NoDevice::Driver(npu.address)) };
    match host::try_open(&node) {
        Err(Refused::Permission(group)) => SessionError::Permission { node, group },
        Err(Refused::Missing) => no_device(NoDevice::Node(node)),
        Err(Refused::Other(error)) => SessionError::file(&node)(error),
        Ok(()) if error.text.contains("No such device") => {
            let has_plugin = host::version_of_library("libxrt_driver_xdna").is_some();
            no_device(if has_plugin { NoDevice::Refused(error) } else { NoDevice::Plugin(error) })
        }
        Ok(()) => diagnose(error, host::CONTEXT_BYTES),
    }
}

/// What XRT's words mean, of a process that needs so many bytes of locked memory.
fn diagnose(error: XrtError, needed: u64) -> SessionError {
    // The driver's calls, as its part of XRT names them. What is mapped is locked, and EAGAIN says that it is too much.
    if error.text.contains("mmap") && error.text.contains("err=-11") {
        let (limit, needed) = (host::memlock_limit().unwrap_or(0), needed + host::locked_memory());
        return SessionError::Memlock { limit, needed, error };
    }
    if error.text.contains("CREATE_HWCTX") {
        return SessionError::Contexts(error);
    }
    SessionError::Xrt(error)
}

fn check_device(npu: &Npu, design: &Design) -> Result<(), SessionError> {
    if npu.device() == Some(design.device) {
        return Ok(());
    }
    let got = npu.device().map_or_else(|| format!("another one ({:#06x})", npu.id), |device| device.name().to_owned());
    Err(SessionError::Device { got, expected: design.device.name() })
}
