//! Ground truth through SQL, as a test.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::path::{Path, PathBuf};

use mvvd_bench::truth::{Set, check};

/// In a test every n-th row of the larger set is run; `mvvd-bench truth` runs them all.
const WORDNET_EVERY: usize = 41;
const DEBIAN_EVERY: usize = 5;

/// The folder with the full data sets: beside the checkout, or where `MVVD_DATA` says. They are not in the repository.
fn data() -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data");
    let folder = std::env::var_os("MVVD_DATA").map_or(beside, PathBuf::from);
    folder.join("wordnet_ground_truth.parquet").exists().then_some(folder)
}

async fn run(set: Set, every: usize, least: usize) {
    let Some(data) = data() else {
        eprintln!("skipped: the ground truth is not here; set MVVD_DATA to its folder");
        return;
    };
    let report = check(&data, set, every).await.unwrap();
    assert!(report.checked >= least, "only {} rows were checked", report.checked);
    assert!(
        report.failures.is_empty(),
        "{} of {} differ:\n{}",
        report.failures.len(),
        report.checked,
        report.failures.join("\n")
    );
}

#[tokio::test]
async fn debian_ground_truth() {
    run(Set::Debian, DEBIAN_EVERY, 800).await;
}

#[tokio::test]
async fn wordnet_ground_truth() {
    run(Set::Wordnet, WORDNET_EVERY, 380).await;
}
