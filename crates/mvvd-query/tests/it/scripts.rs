//! Runs the scripts under `sql`, which are documentation too: every statement must succeed.

use std::path::Path;

use mvvd_query::{Config, Mvvd};

#[test]
fn scripts() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap();
    let mut files: Vec<_> = std::fs::read_dir(root.join("sql")).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "sql"));
    files.sort();
    assert!(files.len() >= 4, "{files:?}");
    for file in files {
        // The scripts are written for the root of the repository, tests run elsewhere.
        let text = std::fs::read_to_string(&file).unwrap().replace("'data/", &format!("'{}/data/", root.display()));
        let session = Mvvd::open(Config::memory()).unwrap().session();
        let statements = session.statements(&text).unwrap();
        assert!(statements.len() > 5, "{}", file.display());
        for statement in statements {
            let place = format!("{}:{}", file.display(), statement.line());
            let rows = futures::executor::block_on(async { session.run(&statement, &[]).await?.collect().await });
            assert!(rows.is_ok(), "{place}: {:?}", rows.err());
        }
        let left = futures::executor::block_on(async {
            session.sql("SELECT name FROM mvvd.tables", &[]).await?.collect().await
        });
        assert_eq!(
            left.unwrap().iter().map(|batch| batch.num_rows()).sum::<usize>(),
            0,
            "{} leaves tables",
            file.display()
        );
    }
}
