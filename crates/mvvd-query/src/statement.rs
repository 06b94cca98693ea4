//! Which code runs a statement: ours for everything that changes something, DataFusion's planner for queries.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    self, BinaryOperator, Expr, FunctionArg, FunctionArguments, ObjectName, Query, SetExpr, TableFactor, Visit, Visitor,
};
use futures::FutureExt;
use futures::future::BoxFuture;
use mvvd_core::{Error, Result};

use crate::Value;
use crate::answer::Answer;
use crate::rewrite::rewrite;
use crate::session::Session;

/// Most relations that one statement names, subqueries included; planning takes longer with every one.
const RELATIONS_MAX: usize = 200;

impl Session {
    /// Runs a parsed statement. Boxed, since EXECUTE comes back here.
    pub(crate) fn dispatch(&self, mut statement: ast::Statement, params: Vec<Value>) -> BoxFuture<'_, Result<Answer>> {
        async move {
            use ast::Statement as S;
            ready(&mut statement)?;
            // What is prepared is expanded when it is executed, with the indexes that there are then.
            let asked = match statement {
                S::Prepare { .. } => None,
                _ => self.expand_searches(&mut statement)?,
            };
            let session = asked.map_or_else(|| self.clone(), |settings| self.asking(settings));
            match statement {
                S::Query(_) => session.run_query("SELECT", statement, &params).await,
                S::Explain { .. } => match explainable(statement)? {
                    (statement, false) => session.run_query("EXPLAIN", statement, &params).await,
                    (statement, true) => Box::pin(session.explain_recall(statement, &params)).await,
                },
                S::CreateTable(create) => Box::pin(session.create_table(create, &params)).await,
                S::AlterTable(alter) => Box::pin(session.alter_table(alter)).await,
                S::Drop { object_type: ast::ObjectType::Table, if_exists, names, .. } => {
                    session.drop_tables(if_exists, &names).await
                }
                S::CreateIndex(create) => Box::pin(session.create_index(create)).await,
                S::Drop { object_type: ast::ObjectType::Index, if_exists, names, .. } => {
                    session.drop_indexes(if_exists, &names).await
                }
                S::Truncate(truncate) => session.truncate(&truncate).await,
                S::Insert(insert) => Box::pin(session.insert_statement(insert, &params)).await,
                S::Update(update) => Box::pin(session.update_statement(update, &params)).await,
                S::Delete(delete) => Box::pin(session.delete_statement(delete, &params)).await,
                S::Copy { source, to, target, options, legacy_options, .. } => {
                    Box::pin(session.copy(source, to, target, &options, &legacy_options, &params)).await
                }
                S::Set(set) => session.set(set),
                S::Reset(reset) => session.reset(&reset),
                S::ShowVariable { variable } => session.show(&variable).await,
                S::ShowTables { .. } => session.show_tables().await,
                S::Prepare { name, data_types, statement } => {
                    Box::pin(session.prepare(&name, data_types, *statement)).await
                }
                S::Execute { name, parameters, .. } => Box::pin(session.execute(name, parameters, &params)).await,
                S::Deallocate { name, .. } => session.deallocate(&name),
                other => Err(unsupported(&other)),
            }
        }
        .boxed()
    }
}

/// Checks a parsed statement and puts it into the form that the planner takes.
pub(crate) fn ready(statement: &mut ast::Statement) -> Result<()> {
    check_supported(statement)?;
    rewrite(statement)
}

/// The error for a statement that parses but that we do not run.
fn unsupported(statement: &ast::Statement) -> Error {
    use ast::Statement as S;
    match statement {
        S::StartTransaction { .. } | S::Commit { .. } | S::Rollback { .. } | S::Savepoint { .. } => {
            Error::unsupported("transactions over several statements are not supported")
                .with_hint("each statement is atomic by itself")
        }
        S::CreateView { .. } => {
            Error::unsupported("CREATE VIEW is not supported").with_hint("use WITH name AS (SELECT …)")
        }
        S::Merge { .. } => Error::unsupported("MERGE is not supported").with_hint("use INSERT … ON CONFLICT DO UPDATE"),
        S::Delete { .. } => Error::unsupported("this form of DELETE is not supported"),
        other => {
            let text = other.to_string();
            let words: Vec<&str> =
                text.split_whitespace().take_while(|w| w.chars().all(|c| c.is_ascii_uppercase())).take(3).collect();
            let name = if words.is_empty() { "this statement".to_owned() } else { words.join(" ") };
            Error::unsupported(format!("{name} is not supported"))
        }
    }
}

/// `EXPLAIN` in the forms that DataFusion runs, its options in parentheses as keywords, and whether `RECALL` is among them.
pub(crate) fn explainable(statement: ast::Statement) -> Result<(ast::Statement, bool)> {
    let ast::Statement::Explain {
        describe_alias,
        mut analyze,
        mut verbose,
        query_plan,
        estimate,
        statement,
        format,
        options,
    } = statement
    else {
        return Ok((statement, false));
    };
    if !matches!(*statement, ast::Statement::Query(_)) {
        return Err(Error::unsupported("EXPLAIN is supported for queries only"));
    }
    let mut recall = false;
    for option in options.iter().flatten() {
        let on = match &option.arg {
            None => true,
            Some(arg) => !matches!(arg.to_string().to_ascii_lowercase().as_str(), "false" | "off" | "0"),
        };
        match option.name.value.to_ascii_lowercase().as_str() {
            "analyze" => analyze = on,
            "verbose" => verbose = on,
            "recall" => recall = on,
            other => {
                return Err(Error::invalid(format!("unknown EXPLAIN option \"{other}\""))
                    .with_hint("the options are ANALYZE, VERBOSE and RECALL"));
            }
        }
    }
    if recall && !analyze {
        return Err(Error::invalid("EXPLAIN option RECALL requires ANALYZE")
            .with_hint("write EXPLAIN (ANALYZE, RECALL): the query is run"));
    }
    let explain = ast::Statement::Explain {
        describe_alias,
        analyze,
        verbose,
        query_plan,
        estimate,
        statement,
        format,
        options: None,
    };
    Ok((explain, recall))
}

/// Refuses clauses that the planner would drop without a word.
fn check_supported(statement: &ast::Statement) -> Result<()> {
    #[derive(Default)]
    struct Check {
        relations: usize,
    }
    impl Visitor for Check {
        type Break = Error;

        fn pre_visit_relation(&mut self, name: &ObjectName) -> ControlFlow<Error> {
            if name.0.iter().filter_map(|part| part.as_ident()).any(|part| part.value.starts_with("__mvvd")) {
                return ControlFlow::Break(Error::not_found(format!("table {name} does not exist")));
            }
            ControlFlow::Continue(())
        }

        fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<Error> {
            if !query.locks.is_empty() {
                let e = Error::unsupported("FOR UPDATE and FOR SHARE are not supported");
                return ControlFlow::Break(e.with_hint("each statement is atomic by itself"));
            }
            if query.with.as_ref().is_some_and(|with| with.cte_tables.len() > RELATIONS_MAX) {
                return ControlFlow::Break(Error::exhausted(format!(
                    "a statement can have {RELATIONS_MAX} WITH queries"
                )));
            }
            match query.body.as_ref() {
                SetExpr::Insert(_) | SetExpr::Update(_) | SetExpr::Delete(_) | SetExpr::Merge(_) => {
                    let e = Error::unsupported("WITH before INSERT, UPDATE or DELETE is not supported");
                    ControlFlow::Break(e.with_hint("put the query into a subquery of the statement"))
                }
                SetExpr::Select(select) if select.into.is_some() => ControlFlow::Break(
                    Error::unsupported("SELECT INTO is not supported").with_hint("use CREATE TABLE … AS SELECT"),
                ),
                _ => ControlFlow::Continue(()),
            }
        }

        fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<Error> {
            self.relations += 1;
            if self.relations > RELATIONS_MAX {
                return ControlFlow::Break(Error::exhausted(format!("a statement can name {RELATIONS_MAX} relations")));
            }
            match factor {
                TableFactor::Table { sample: Some(_), .. } | TableFactor::Derived { sample: Some(_), .. } => {
                    ControlFlow::Break(
                        Error::unsupported("TABLESAMPLE is not supported").with_hint("use WHERE random() < 0.1"),
                    )
                }
                TableFactor::Table { args: Some(args), .. } if args.args.iter().any(is_named) => {
                    ControlFlow::Break(named_args())
                }
                TableFactor::Function { args, .. } if args.iter().any(is_named) => ControlFlow::Break(named_args()),
                _ => ControlFlow::Continue(()),
            }
        }

        fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<Error> {
            match expr {
                Expr::BinaryOp { left, op, right } if is_distance_operator(op) => {
                    match weight_without_parentheses(left, op, right) {
                        Some(e) => ControlFlow::Break(e),
                        None => ControlFlow::Continue(()),
                    }
                }
                Expr::Function(function) => match &function.args {
                    FunctionArguments::List(list) if list.args.iter().any(is_named) => ControlFlow::Break(named_args()),
                    _ => ControlFlow::Continue(()),
                },
                _ => ControlFlow::Continue(()),
            }
        }
    }
    match Visit::visit(statement, &mut Check::default()) {
        ControlFlow::Break(e) => Err(e),
        ControlFlow::Continue(()) => Ok(()),
    }
}

/// The error for `0.7 * a <-> b`, which means `(0.7 * a) <-> b`: the distance operators bind weaker than arithmetic.
fn weight_without_parentheses(left: &Expr, op: &BinaryOperator, right: &Expr) -> Option<Error> {
    let sign = op.to_string().replace("<~=>", "<=>").replace("<~+>", "<+>");
    let (arithmetic, hint) = match (left, right) {
        (Expr::BinaryOp { left: number, op: arithmetic, right: vector }, _)
            if is_number(number) && verb(arithmetic).is_some() =>
        {
            (arithmetic, format!("write {number} {arithmetic} ({vector} {sign} …)"))
        }
        (_, Expr::BinaryOp { left: vector, op: arithmetic, right: number })
            if is_number(number) && verb(arithmetic).is_some() =>
        {
            (arithmetic, format!("write (… {sign} {vector}) {arithmetic} {number}"))
        }
        _ => return None,
    };
    let message = format!(
        "cannot {} a number and a vector: the distance operators bind weaker than {arithmetic}",
        verb(arithmetic)?
    );
    Some(Error::invalid(message).with_hint(hint))
}

fn is_number(expr: &Expr) -> bool {
    matches!(expr, Expr::Value(value) if matches!(value.value, ast::Value::Number(..)))
}

fn verb(op: &BinaryOperator) -> Option<&'static str> {
    match op {
        BinaryOperator::Plus => Some("add"),
        BinaryOperator::Minus => Some("subtract"),
        BinaryOperator::Multiply => Some("multiply"),
        BinaryOperator::Divide => Some("divide"),
        _ => None,
    }
}

fn is_named(arg: &FunctionArg) -> bool {
    !matches!(arg, FunctionArg::Unnamed(_))
}

fn named_args() -> Error {
    Error::unsupported("named function arguments are not supported").with_hint("give the arguments in order")
}

/// Whether an operator of the syntax tree compares vectors.
pub(crate) fn is_distance_operator(op: &BinaryOperator) -> bool {
    matches!(op.to_string().as_str(), "<->" | "<#>" | "<~=>" | "<~+>" | "<~>" | "<%>")
}

/// Whether a function compares vectors.
pub(crate) fn is_distance_function(name: &ObjectName) -> bool {
    let name = name.to_string().to_ascii_lowercase();
    name.ends_with("_distance")
        || name.ends_with("inner_product")
        || name == "cosine_similarity"
        || name == "dot_product"
}
