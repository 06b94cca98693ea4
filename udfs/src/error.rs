//! Our errors inside DataFusion's, whole: kind and hint survive the way through planning and execution.

use std::error::Error as StdError;

use datafusion::error::DataFusionError;
use mvvd_core::Error;

/// Wraps an error so that DataFusion carries it unchanged.
pub fn to_df(error: Error) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

/// Our own error inside a DataFusion error, however many contexts were put around it.
pub fn find(error: &DataFusionError) -> Option<&Error> {
    let mut next: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(current) = next {
        if let Some(found) = current.downcast_ref::<Error>() {
            return Some(found);
        }
        next = match current.downcast_ref::<DataFusionError>() {
            // `External` names the cause of the boxed error as its source, not the boxed error itself.
            Some(DataFusionError::External(inner)) => Some(&**inner),
            Some(DataFusionError::Context(_, inner) | DataFusionError::Diagnostic(_, inner)) => Some(&**inner),
            Some(DataFusionError::Shared(inner)) => Some(&**inner),
            Some(DataFusionError::Collection(all)) => all.first().map(|e| e as _),
            _ => current.source(),
        };
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use mvvd_core::ErrorKind;

    #[test]
    fn kind_and_hint_survive() {
        let wrapped = to_df(Error::unsupported("no").with_hint("do")).context("planning").context("more");
        let found = find(&wrapped).unwrap();
        assert_eq!((found.kind(), found.message(), found.hint()), (ErrorKind::Unsupported, "no", Some("do")));
        assert!(find(&DataFusionError::Plan("x".into())).is_none());
    }
}
