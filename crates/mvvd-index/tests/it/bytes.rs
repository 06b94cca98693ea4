//! What must hold of the bytes of an index.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arrow::buffer::Buffer;
use mvvd_core::{ErrorKind, Result};
use mvvd_index::{Build, Effort, Filter, Registry, Request, Term, VectorIndex, Vectors, build, open, open_over};

use crate::answers::{Case, each, with_build};
use crate::data::Numbers;
use crate::kinds::Kind;
use crate::truth::{check, truth};

/// Places that are damaged in an index; in a larger one a sample.
const PLACES: usize = 400;

pub(crate) fn equal_for_a_seed(kind: &Kind) {
    each(kind, |types, metric| {
        let [a, b] = [0, 1].map(|_| Case::of(kind, types, metric, &[], 1000));
        assert!(a.bytes == b.bytes, "{}: another index for the same seed", a.what);
    });
}

pub(crate) fn cancelled(kind: &Kind) {
    each(kind, |types, metric| {
        let case = Case::of(kind, types, metric, &[], 1000);
        let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
        let run = |progress: &(dyn Fn(f32) + Sync), cancelled: &AtomicBool| {
            build(
                &Registry::builtin(),
                &case.spec,
                &case.vectors(),
                &Build { pool: &pool, seed: 1, progress, cancelled },
            )
        };
        let error = run(&|_| (), &AtomicBool::new(true)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Cancelled, "{}", case.what);
        // In the middle: too late is no fault.
        let flag = AtomicBool::new(false);
        match run(&|_| flag.store(true, Ordering::Relaxed), &flag) {
            Ok(bytes) => assert!(!bytes.is_empty(), "{}", case.what),
            Err(e) => assert_eq!(e.kind(), ErrorKind::Cancelled, "{}: {e}", case.what),
        }
        let told = std::sync::Mutex::new(Vec::new());
        run(&|done| told.lock().unwrap().push(done), &AtomicBool::new(false)).unwrap();
        let told = told.into_inner().unwrap();
        assert!(told.iter().all(|done| (0.0..=1.0).contains(done)), "{}: progress {told:?}", case.what);
    });
}

pub(crate) fn another_index(kind: &Kind) {
    let (types, metrics) = &kind.serves[0];
    let case = Case::of(kind, types, metrics[0], &[], 50);
    let bytes = Buffer::from_slice_ref(&case.bytes);
    let registry = Registry::builtin();
    let error = open(&registry, &case.spec, 51, &bytes).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "other rows");
    let error = open_over(&registry, &case.spec, 50, 7, &bytes).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "another segment");
    let other = registry.spec(kind.name, metrics[1], types.clone(), []).unwrap();
    assert_eq!(open(&registry, &other, 50, &bytes).unwrap_err().kind(), ErrorKind::Corrupt, "another metric");
}

pub(crate) fn cut_off(kind: &Kind) {
    each(kind, |types, metric| {
        let case = Case::of(kind, types, metric, &[], 70);
        let registry = Registry::builtin();
        for len in 0..case.bytes.len() {
            let cut = Buffer::from_slice_ref(&case.bytes[..len]);
            assert!(open(&registry, &case.spec, 70, &cut).is_err(), "{}: opened {len} bytes of it", case.what);
        }
        // The index without its frame, which no checksum guards.
        let (raw, victim) = (raw(&case), Victim::of(&case));
        for len in places(raw.len()) {
            victim.survives(&format!("cut to {len} bytes"), &raw[..len]);
        }
    });
}

/// A flipped bit is found, or is where nothing depends on it.
pub(crate) fn damaged(kind: &Kind) {
    each(kind, |types, metric| {
        let case = Case::of(kind, types, metric, &[], 70);
        let vectors = case.vectors();
        let terms = case.queries(1).remove(0);
        let request = Request { terms: &terms, k: 5, filter: None, effort: Effort::default() };
        let truth = truth(&vectors, 70, &terms, None);
        let mut bytes = case.bytes.clone();
        for place in places(bytes.len()) {
            let flip = 1 << (place % 8);
            bytes[place] ^= flip;
            if let Ok(index) = open(&Registry::builtin(), &case.spec, 70, &Buffer::from_slice_ref(&bytes)) {
                let what = format!("{} byte {place} flipped", case.what);
                check(&what, &index.search(&vectors, &request).unwrap(), &vectors, &request, &truth);
            }
            bytes[place] ^= flip;
        }
    });
}

/// Bytes that a checksum does not guard: an error or any answer, but no panic, and nothing that does not end.
pub(crate) fn damaged_with_a_right_checksum(kind: &Kind) {
    each(kind, |types, metric| {
        for rows in [3, 70, 400] {
            let case = Case::of(kind, types, metric, &[], rows);
            let victim = Victim::of(&case);
            let raw = raw(&case);
            victim.survives("undamaged", &raw);
            let mut bytes = raw.clone();
            for place in places(raw.len()) {
                let change = [1 << (place % 8), 0x80, 0xff, 0x40][place % 4];
                bytes[place] ^= change;
                victim.survives(&format!("byte {place} xor {change:#04x}"), &bytes);
                bytes[place] ^= change;
            }
            // Larger damage: a run of one value.
            let mut numbers = Numbers(11);
            for _ in 0..60 {
                let mut bytes = raw.clone();
                let start = numbers.below(bytes.len().max(1));
                let end = (start + 1 + numbers.below(64)).min(bytes.len());
                let value = [0x00, 0x01, 0x7f, 0xff][numbers.below(4)];
                bytes[start..end].fill(value);
                victim.survives(&format!("bytes {start} to {end} are {value:#04x}"), &bytes);
            }
        }
    });
}

/// The index of a case without its frame.
fn raw(case: &Case) -> Vec<u8> {
    let registry = Registry::builtin();
    let kind = registry.get(&case.spec.kind).unwrap();
    with_build(1, |build| kind.build(&case.spec, &case.vectors(), build).unwrap())
}

/// Every place, or a sample of many.
fn places(len: usize) -> Vec<usize> {
    match len > PLACES {
        false => (0..len).collect(),
        true => {
            let mut numbers = Numbers(len as u64);
            // What stands first decides the most.
            (0..100).chain((100..PLACES).map(|_| numbers.below(len))).collect()
        }
    }
}

/// What damaged bytes are used with.
struct Victim<'a> {
    case: &'a Case,
    vectors: Vec<Vectors<'a>>,
    queries: Vec<Vec<Term>>,
    even: Filter,
    pool: rayon::ThreadPool,
}

impl<'a> Victim<'a> {
    fn of(case: &'a Case) -> Self {
        let rows = case.rows();
        let even = Filter::of_ordinals(rows, (0..rows as u32).step_by(2));
        let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        Self { case, vectors: case.vectors(), queries: case.queries(2), even, pool }
    }

    /// Opens bytes without a frame and uses what comes of it.
    #[track_caller]
    fn survives(&self, damage: &str, bytes: &[u8]) {
        let used = catch_unwind(AssertUnwindSafe(|| {
            if let Err(error) = self.use_all(Buffer::from_slice_ref(bytes)) {
                assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
            }
        }));
        if let Err(panic) = used {
            let message = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
            panic!("{}: {damage}: panicked: {}", self.case.what, message.unwrap_or("?"));
        }
    }

    fn use_all(&self, bytes: Buffer) -> Result<()> {
        let registry = Registry::builtin();
        let index: Arc<dyn VectorIndex> = registry.get(&self.case.spec.kind)?.open(&self.case.spec, bytes)?;
        // The frame tells the number of rows, which is compared.
        let rows = self.case.rows();
        if index.rows() != rows {
            return Ok(());
        }
        for terms in &self.queries {
            for filter in [None, Some(&self.even)] {
                let request = Request { terms, k: 10, filter, effort: Effort::default() };
                index.search(&self.vectors, &request)?;
                let mut cursor = index.cursor(&self.vectors, &request)?;
                let mut given = 0;
                while let count @ 1.. = cursor.next(100)?.len() {
                    given += count;
                    assert!(given <= rows, "a cursor gives more rows than there are");
                }
            }
        }
        let build = Build { pool: &self.pool, seed: 1, progress: &|_| (), cancelled: &AtomicBool::new(false) };
        index.extended(&self.vectors, &build).map(drop)
    }
}
