//! `mvvd_at('table', version)`: a table as it was, as a relation.

use std::fmt;
use std::sync::Arc;

use datafusion::catalog::{TableFunctionArgs, TableFunctionImpl, TableProvider};
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::Expr;
use mvvd_core::Error;
use mvvd_storage::Database;

use crate::catalog::Source;
use crate::error::to_df;

/// Name of the function.
pub(crate) const AT: &str = "mvvd_at";

/// The table function.
pub(crate) struct At {
    database: Arc<Database>,
}

impl At {
    pub(crate) fn new(database: Arc<Database>) -> Arc<Self> {
        Arc::new(Self { database })
    }
}

impl fmt::Debug for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("At").finish_non_exhaustive()
    }
}

impl TableFunctionImpl for At {
    fn call_with_args(&self, args: TableFunctionArgs) -> Result<Arc<dyn TableProvider>> {
        let wrong = || {
            let e = Error::invalid(format!("{AT} takes the name of a table and a number of a version, written out"));
            to_df(e.with_hint(format!("as in SELECT * FROM {AT}('items', 7); mvvd.versions lists the versions")))
        };
        let [Expr::Literal(name, _), Expr::Literal(version, _)] = args.exprs() else { return Err(wrong()) };
        let (ScalarValue::Utf8(Some(name)) | ScalarValue::Utf8View(Some(name)) | ScalarValue::LargeUtf8(Some(name))) =
            name
        else {
            return Err(wrong());
        };
        let version = match version {
            ScalarValue::Int64(Some(version)) => u64::try_from(*version).map_err(|_| wrong())?,
            ScalarValue::UInt64(Some(version)) => *version,
            _ => return Err(wrong()),
        };
        let table = self.database.table(name).map_err(to_df)?;
        let snapshot = table.at(version).map_err(|e| to_df(e.context(format!("table \"{name}\""))))?;
        Ok(Arc::new(Source::new(name, snapshot, false)))
    }
}
