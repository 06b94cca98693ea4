//! Rust functions as combinations of distances.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array};
use arrow::datatypes::{DataType, Float64Type};
use datafusion::common::Result as DfResult;
use datafusion::execution::FunctionRegistry;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};
use mvvd_core::{Error, Result};
use parking_lot::RwLock;

use crate::Mvvd;

/// Most functions of one database.
const FUNCTIONS_MAX: usize = 1_000;

type Function = Arc<dyn Fn(&[f64]) -> f64 + Send + Sync>;

/// The functions that were registered with a database, in all its sessions.
#[derive(Debug, Default)]
pub(crate) struct UserFunctions(RwLock<Vec<Arc<ScalarUDF>>>);

impl UserFunctions {
    pub(crate) fn register(&self, state: &mut SessionState) {
        for function in self.0.read().iter() {
            state.register_udf(Arc::clone(function)).expect("a scalar function registers");
        }
    }

    pub(crate) fn find(&self, name: &str) -> Option<Arc<ScalarUDF>> {
        self.0.read().iter().find(|f| f.name() == name).cloned()
    }
}

impl Mvvd {
    /// Registers a function of `arity` numbers, for SQL and for [`Combine::Function`](crate::Combine::Function).
    ///
    /// `monotone` promises that the value never falls when an argument rises, which lets indexes bound it. The function
    /// is called once a row and must not depend on anything but its arguments. It is NULL where an argument is NULL.
    pub fn register_function(
        &self,
        name: &str,
        arity: usize,
        monotone: bool,
        function: impl Fn(&[f64]) -> f64 + Send + Sync + 'static,
    ) -> Result<()> {
        let valid = !name.starts_with("mvvd_")
            && !name.starts_with("__")
            && name.chars().next().is_some_and(|c| c.is_ascii_lowercase() || c == '_')
            && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
        if !valid {
            return Err(Error::invalid(format!(
                "a function name has lower-case letters, digits and _, got \"{name}\""
            )));
        }
        if arity == 0 {
            return Err(Error::invalid(format!("function \"{name}\" needs at least one argument")));
        }
        if self.session().vocabulary().functions.iter().any(|known| known == name) {
            return Err(Error::already_exists(format!("function \"{name}\" already exists")));
        }
        let mut functions = self.engine().functions.0.write();
        if functions.len() == FUNCTIONS_MAX {
            return Err(Error::exhausted(format!("a database cannot have more than {FUNCTIONS_MAX} functions")));
        }
        if functions.iter().any(|known| known.name() == name) {
            return Err(Error::already_exists(format!("function \"{name}\" already exists")));
        }
        let signature = Signature::exact(vec![DataType::Float64; arity], Volatility::Immutable);
        functions.push(Arc::new(ScalarUDF::from(UserFunction {
            name: name.to_owned(),
            monotone,
            signature,
            function: Arc::new(function),
        })));
        Ok(())
    }
}

/// A Rust function over numbers.
struct UserFunction {
    name: String,
    monotone: bool,
    signature: Signature,
    function: Function,
}

impl std::fmt::Debug for UserFunction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UserFunction")
            .field("name", &self.name)
            .field("monotone", &self.monotone)
            .finish_non_exhaustive()
    }
}

// Names are unique within a database.
impl PartialEq for UserFunction {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name && Arc::ptr_eq(&self.function, &other.function)
    }
}

impl Eq for UserFunction {}

impl Hash for UserFunction {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl ScalarUDFImpl for UserFunction {
    fn name(&self) -> &str {
        &self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> DfResult<DataType> {
        Ok(DataType::Float64)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        let rows = args.number_rows;
        let columns: Vec<ArrayRef> = args.args.into_iter().map(|arg| arg.into_array(rows)).collect::<DfResult<_>>()?;
        let columns: Vec<&Float64Array> = columns.iter().map(|column| column.as_primitive::<Float64Type>()).collect();
        let mut values = vec![0.0; columns.len()];
        let result: Float64Array = (0..rows)
            .map(|row| {
                if columns.iter().any(|column| column.is_null(row)) {
                    return None;
                }
                values.iter_mut().zip(&columns).for_each(|(value, column)| *value = column.value(row));
                Some((self.function)(&values))
            })
            .collect();
        Ok(ColumnarValue::Array(Arc::new(result)))
    }
}
