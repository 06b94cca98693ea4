//! The analyzer rule that gives vector literals, casts and parameters their types. It must run first.
//!
//! | before | after |
//! |---|---|
//! | `l2_distance(v, '[1,2]')` | the same, checked |
//! | `l2_distance(v, [1,2])`, or a bound list | `l2_distance(v, '[1,2]')` |
//! | `v + '[1,2]'`, `subvector('[1,2]', 1, 1)` | the literal has its vector type |
//! | `l2_distance(v, $1)` | `$1` has the type of `v` |
//! | `'[1,2]'::VECTOR(2)` | the literal, checked |
//! | `text::VECTOR(2)`, `v::TEXT`, `v::REAL[]` | `to_vector(text)`, `to_text(v)`, `to_list(v)` |
//! | `mvvd_array('[1,2]')` | a list literal, or straight into any of the above |
//! | `v IN ('[1,2]')`, `coalesce(v, '[1,2]')`, CASE | the text has the type of `v` |
//! | `avg(x)`, `sum(x)` over numbers | DataFusion's own |
//!
//! Where one side of a distance is a vector that is known, the function carries it, and the plan shows a short name of
//! it: a plan copies, shows and compares its literals dozens of times, which would cost more than the search.

use std::cell::Cell;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, ExprSchema, Result as DfResult, ScalarValue};
use datafusion::functions::core::coalesce as stock_coalesce;
use datafusion::logical_expr::expr::{Placeholder, ScalarFunction};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{
    BinaryExpr, Cast, Expr, ExprSchemable, LogicalPlan, Operator, WindowFunctionDefinition,
};
use datafusion::optimizer::AnalyzerRule;
use mvvd_core::vector_type::TYPE_KEY;
use mvvd_core::{Result, VectorKind, VectorType};

use crate::bound::Query;
use crate::convert::{self, Target};
use crate::error::to_df;
use crate::function::{Arg, VectorFunction, VectorUdf, is_plain, return_field};
use crate::name::label;
use crate::operand::{Operand, kind_of_text, text_of};
use crate::operators::query_kind;
use crate::written::{Written, literal_field, may_be_written, query_literal, text_literal, vector_literal, written};
use crate::{aggregate, array, coalesce};

/// Gives vector literals, casts and parameters their types; see the top of the file.
#[derive(Debug, Default)]
pub struct VectorLiterals;

impl AnalyzerRule for VectorLiterals {
    fn name(&self) -> &str {
        "vector_literals"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> DfResult<LogicalPlan> {
        // Once something changed, the schemas above it are computed again.
        let changed = Cell::new(false);
        plan.transform_up_with_subqueries(|plan| rewrite_node(plan, &changed)).data()
    }
}

fn rewrite_node(plan: LogicalPlan, changed: &Cell<bool>) -> DfResult<Transformed<LogicalPlan>> {
    let mut found = false;
    plan.apply_expressions(|expr| {
        found = found || expr.exists(|expr| Ok(is_candidate(expr)))?;
        Ok(TreeNodeRecursion::Continue)
    })?;
    if !found {
        return if changed.get() { Ok(Transformed::yes(plan.recompute_schema()?)) } else { Ok(Transformed::no(plan)) };
    }
    let mut schema = merge_schema(&plan.inputs());
    if let LogicalPlan::TableScan(scan) = &plan {
        schema.merge(&DFSchema::try_from_qualified_schema(scan.table_name.clone(), &scan.source.schema())?);
    }
    // The output of these is not named after their expressions.
    let named = !matches!(plan, LogicalPlan::Sort(_) | LogicalPlan::Values(_));
    let names = NamePreserver::new(&plan);
    let rewritten = plan.map_expressions(|expr| {
        if !expr.exists(|expr| Ok(is_candidate(expr)))? {
            return Ok(Transformed::no(expr));
        }
        let name = named.then(|| names.save(&expr));
        let new = expr.transform_down_up(|expr| rewrite_down(expr, &schema), |expr| rewrite_up(expr, &schema))?;
        Ok(match name {
            Some(name) if new.transformed => new.update_data(|expr| name.restore(expr)),
            _ => new,
        })
    })?;
    if !rewritten.transformed && !changed.get() {
        return Ok(rewritten);
    }
    changed.set(true);
    rewritten.map_data(LogicalPlan::recompute_schema)
}

/// Whether an expression may need this rule. Cheap: every expression of every statement is asked.
fn is_candidate(expr: &Expr) -> bool {
    let to_type = |field: &Field| {
        field.metadata().contains_key(TYPE_KEY)
            || matches!(
                field.data_type(),
                DataType::Utf8
                    | DataType::LargeUtf8
                    | DataType::Utf8View
                    | DataType::List(_)
                    | DataType::LargeList(_)
                    | DataType::FixedSizeList(..)
            )
    };
    let source =
        |expr: &Expr| may_be_written(expr) || matches!(expr, Expr::Placeholder(Placeholder { field: None, .. }));
    match expr {
        Expr::ScalarFunction(call) => needs_types(call) || call.func.name() == array::ARRAY || coalesce::is(&call.func),
        Expr::Cast(cast) => to_type(&cast.field),
        Expr::TryCast(cast) => to_type(&cast.field),
        Expr::AggregateFunction(call) => aggregate::original(&call.func).is_some(),
        Expr::WindowFunction(call) => match &call.fun {
            WindowFunctionDefinition::AggregateUDF(func) => aggregate::original(func).is_some(),
            WindowFunctionDefinition::WindowUDF(_) => false,
        },
        Expr::InList(list) => list.list.iter().any(source),
        Expr::Case(case) => {
            case.when_then_expr.iter().any(|(_, then)| source(then)) || case.else_expr.as_deref().is_some_and(source)
        }
        Expr::BinaryExpr(BinaryExpr { left, op, right }) if is_comparison(*op) => {
            looks_like_vector(left) || looks_like_vector(right)
        }
        _ => false,
    }
}

/// Whether a call is one of ours, and not one that this rule has finished.
fn needs_types(call: &ScalarFunction) -> bool {
    VectorUdf::of(&call.func).is_some_and(|function| function.query().is_none())
}

fn is_comparison(op: Operator) -> bool {
    use Operator::{Eq, Gt, GtEq, IsDistinctFrom, IsNotDistinctFrom, Lt, LtEq, NotEq};
    matches!(op, Eq | NotEq | Lt | LtEq | Gt | GtEq | IsDistinctFrom | IsNotDistinctFrom)
}

/// Whether a comparison with this may be one with a vector; most comparisons with texts are not.
fn looks_like_vector(expr: &Expr) -> bool {
    match expr {
        Expr::Literal(value, _) => match text_of(value) {
            Some(text) => text.trim_start().starts_with(['[', '{', '0', '1']),
            None => value.data_type().is_list(),
        },
        other => may_be_written(other),
    }
}

/// Functions and casts over values that are written out, before those become plain lists.
fn rewrite_down(expr: Expr, schema: &DFSchema) -> DfResult<Transformed<Expr>> {
    match expr {
        Expr::ScalarFunction(call) if needs_types(&call) => type_arguments(call, schema),
        Expr::Cast(_) | Expr::TryCast(_) => fold_cast(expr),
        other => Ok(Transformed::no(other)),
    }
}

/// Everything else, once the parts are done.
fn rewrite_up(expr: Expr, schema: &DFSchema) -> DfResult<Transformed<Expr>> {
    match expr {
        Expr::Cast(_) | Expr::TryCast(_) => {
            let folded = fold_cast(expr)?;
            if folded.transformed { Ok(folded) } else { convert_cast(folded.data, schema) }
        }
        Expr::ScalarFunction(call) if call.func.name() == array::ARRAY => {
            let expr = Expr::ScalarFunction(call);
            match array::text(&expr) {
                Some(text) => Ok(Transformed::yes(Expr::Literal(array::list(text).map_err(to_df)?, None))),
                None => Ok(Transformed::no(expr)),
            }
        }
        Expr::ScalarFunction(call)
            if VectorUdf::of(&call.func).is_some_and(|f| f.distance().is_some() && f.query().is_none()) =>
        {
            carry_query(call, schema)
        }
        Expr::ScalarFunction(mut call) if coalesce::is(&call.func) => {
            let ty = vector_among(call.args.iter(), schema)?;
            call.func = stock_coalesce();
            let Some(ty) = ty else {
                return Ok(Transformed::yes(Expr::ScalarFunction(call)));
            };
            call.args = call.args.into_iter().map(|arg| to_type(arg, ty, schema)).collect::<DfResult<_>>()?;
            Ok(Transformed::yes(keep_type(Expr::ScalarFunction(call), ty)))
        }
        Expr::BinaryExpr(BinaryExpr { left, op, right }) if is_comparison(op) => {
            let (a, b) = (field_of(&left, schema)?, field_of(&right, schema)?);
            let (a_operand, b_operand) = (Operand::of_field(&a), Operand::of_field(&b));
            let (left, right, changed) = match (a_operand.vector_type(), b_operand.vector_type()) {
                (Some(ty), None) if b_operand.is_source() => (*left, to_type(*right, ty, schema)?, true),
                (None, Some(ty)) if a_operand.is_source() => (to_type(*left, ty, schema)?, *right, true),
                _ => (*left, *right, false),
            };
            let expr = Expr::BinaryExpr(BinaryExpr::new(Box::new(left), op, Box::new(right)));
            Ok(Transformed::new_transformed(expr, changed))
        }
        Expr::InList(mut list) => {
            let Some(ty) = vector_among([&*list.expr], schema)? else {
                return Ok(Transformed::no(Expr::InList(list)));
            };
            list.list = list.list.into_iter().map(|item| to_type(item, ty, schema)).collect::<DfResult<_>>()?;
            Ok(Transformed::yes(Expr::InList(list)))
        }
        Expr::Case(mut case) => {
            let branches = case.when_then_expr.iter().map(|(_, then)| &**then).chain(case.else_expr.as_deref());
            let Some(ty) = vector_among(branches, schema)? else {
                return Ok(Transformed::no(Expr::Case(case)));
            };
            for (_, then) in &mut case.when_then_expr {
                **then = to_type(std::mem::take(then), ty, schema)?;
            }
            if let Some(otherwise) = &mut case.else_expr {
                **otherwise = to_type(std::mem::take(otherwise), ty, schema)?;
            }
            Ok(Transformed::yes(keep_type(Expr::Case(case), ty)))
        }
        Expr::AggregateFunction(mut call) => {
            let Some(original) = aggregate::original(&call.func) else {
                return Ok(Transformed::no(Expr::AggregateFunction(call)));
            };
            match vector_among(call.params.args.iter(), schema)? {
                None => {
                    call.func = Arc::clone(original);
                    Ok(Transformed::yes(Expr::AggregateFunction(call)))
                }
                Some(_) if call.params.distinct => Err(to_df(aggregate::distinct_unsupported(original))),
                Some(_) => Ok(Transformed::no(Expr::AggregateFunction(call))),
            }
        }
        Expr::WindowFunction(mut call) => {
            let original = match &call.fun {
                WindowFunctionDefinition::AggregateUDF(func) => aggregate::original(func).cloned(),
                WindowFunctionDefinition::WindowUDF(_) => None,
            };
            match original {
                Some(original) if vector_among(call.params.args.iter(), schema)?.is_none() => {
                    call.fun = WindowFunctionDefinition::AggregateUDF(original);
                    Ok(Transformed::yes(Expr::WindowFunction(call)))
                }
                _ => Ok(Transformed::no(Expr::WindowFunction(call))),
            }
        }
        other => Ok(Transformed::no(other)),
    }
}

/// The type of an expression. Literals and columns are looked at without making a name for them.
fn field_of(expr: &Expr, schema: &DFSchema) -> DfResult<FieldRef> {
    match expr {
        Expr::Literal(value, metadata) => Ok(Arc::new(literal_field(value, metadata.as_ref()))),
        Expr::Column(column) => schema.field_from_column(column).map(Arc::clone),
        other => other.to_field(schema).map(|(_, field)| field),
    }
}

/// The first vector type among expressions.
fn vector_among<'a>(exprs: impl IntoIterator<Item = &'a Expr>, schema: &DFSchema) -> DfResult<Option<VectorType>> {
    for expr in exprs {
        if let Some(ty) = VectorType::of_field(&*field_of(expr, schema)?) {
            return Ok(Some(ty));
        }
    }
    Ok(None)
}

/// An expression as a vector of type `ty`.
fn to_type(expr: Expr, ty: VectorType, schema: &DFSchema) -> DfResult<Expr> {
    if let Expr::Placeholder(Placeholder { id, field: None }) = expr {
        return Ok(Expr::Placeholder(Placeholder { id, field: Some(Arc::new(ty.field("", true))) }));
    }
    if VectorType::of_field(&*field_of(&expr, schema)?) == Some(ty) {
        return Ok(expr);
    }
    let cast = fold_cast(Expr::Cast(Cast::new_from_field(Box::new(expr), Arc::new(ty.field("", true)))))?;
    if cast.transformed { Ok(cast.data) } else { convert_cast(cast.data, schema).data() }
}

/// Bits and sparse vectors say what they are in the field metadata, which CASE drops.
fn keep_type(expr: Expr, ty: VectorType) -> Expr {
    match ty.kind {
        VectorKind::Dense | VectorKind::Half => expr,
        VectorKind::Bit | VectorKind::Sparse => convert::expr(expr, Target::Vector(ty), false),
    }
}

/// Takes a cast apart: source, target, and whether it is TRY_CAST.
fn cast_parts(expr: &Expr) -> Option<(&Expr, &FieldRef, bool)> {
    match expr {
        Expr::Cast(cast) => Some((&cast.expr, &cast.field, false)),
        Expr::TryCast(cast) => Some((&cast.expr, &cast.field, true)),
        _ => None,
    }
}

/// A cast of a value that is written out becomes the value.
fn fold_cast(expr: Expr) -> DfResult<Transformed<Expr>> {
    let folded = match cast_parts(&expr) {
        Some((source, field, tolerant)) => fold_written(source, field, tolerant)?,
        None => None,
    };
    Ok(match folded {
        Some(folded) => Transformed::yes(folded),
        None => Transformed::no(expr),
    })
}

fn fold_written(source: &Expr, field: &Field, tolerant: bool) -> DfResult<Option<Expr>> {
    if let Expr::Literal(value, metadata) = source {
        let from = literal_field(value, metadata.as_ref());
        let Some(target) = Target::of(&from, field) else {
            return Ok(None);
        };
        return if takes(&target, &from) { convert::fold(value, &from, &target, tolerant).map(Some) } else { Ok(None) };
    }
    let Some(ty) = VectorType::of_field(field).filter(|_| may_be_written(source)) else {
        return Ok(None);
    };
    let value = match written(source) {
        // The text of a list is the text of a vector.
        Some(Written::Array(text)) if matches!(ty.kind, VectorKind::Dense | VectorKind::Half) => {
            ScalarValue::from(text)
        }
        Some(Written::Array(text)) => array::list(text).map_err(to_df)?,
        Some(Written::List(value)) => value,
        Some(Written::Text(_)) | None => return Ok(None),
    };
    convert::fold(&value, &literal_field(&value, None), &Target::Vector(ty), tolerant).map(Some)
}

/// Whether a conversion reads a type itself; for the others Arrow makes text of it first.
fn takes(target: &Target, from: &Field) -> bool {
    match target {
        Target::Json | Target::Uuid => from.data_type().is_string() || from.data_type().is_null(),
        Target::Vector(_) | Target::Text | Target::List(_) => true,
    }
}

/// A cast to or from a vector of something computed becomes a call of our conversion.
fn convert_cast(expr: Expr, schema: &DFSchema) -> DfResult<Transformed<Expr>> {
    let Some((source, field, tolerant)) = cast_parts(&expr) else {
        return Ok(Transformed::no(expr));
    };
    if matches!(source, Expr::Placeholder(Placeholder { field: None, .. })) {
        return match (VectorType::of_field(field), source) {
            (Some(_), Expr::Placeholder(Placeholder { id, .. })) => {
                let (id, field) = (id.clone(), Some(Arc::clone(field)));
                Ok(Transformed::yes(Expr::Placeholder(Placeholder { id, field })))
            }
            _ => Ok(Transformed::no(expr)),
        };
    }
    let from = field_of(source, schema)?;
    let Some(target) = Target::of(&from, field) else {
        return Ok(Transformed::no(expr));
    };
    let same = from.data_type() == field.data_type() && from.metadata().get(TYPE_KEY) == field.metadata().get(TYPE_KEY);
    let (requested, is_text_target) = (field.data_type().clone(), target == Target::Text);
    let source = match expr {
        Expr::Cast(cast) => *cast.expr,
        Expr::TryCast(cast) => *cast.expr,
        other => other,
    };
    if same {
        return Ok(Transformed::yes(source));
    }
    let source = if takes(&target, &from) { source } else { Expr::Cast(Cast::new(Box::new(source), DataType::Utf8)) };
    let converted = convert::expr(source, target, tolerant);
    Ok(Transformed::yes(if is_text_target && requested != DataType::Utf8 {
        Expr::Cast(Cast::new(Box::new(converted), requested))
    } else {
        converted
    }))
}

/// Gives the vector arguments of one of our functions their types, and checks them.
fn type_arguments(mut call: ScalarFunction, schema: &DFSchema) -> DfResult<Transformed<Expr>> {
    let function = VectorUdf::of(&call.func).expect("the caller has looked");
    let vectors = function.vectors().min(call.args.len());
    let fields = call.args.iter().map(|arg| field_of(arg, schema)).collect::<DfResult<Vec<_>>>()?;
    let operands: Vec<Operand> = fields.iter().map(|field| Operand::of_field(field)).collect();
    if function.original().is_some() && is_plain(fields[..vectors].iter().map(|field| field.data_type())) {
        return Ok(Transformed::no(Expr::ScalarFunction(call)));
    }
    let mut changes = Vec::new();
    let mut typed = fields.clone();
    for i in (0..vectors).filter(|&i| operands[i].is_source()) {
        let others = || (0..vectors).filter(|&j| j != i);
        let beside = others().find_map(|j| operands[j].vector_type());
        if let Expr::Placeholder(Placeholder { id, field: None }) = &call.args[i] {
            let ty = match function.distance() {
                Some(_) => beside.map(|ty| VectorType { kind: query_kind(ty.kind), ..ty }),
                None => beside,
            };
            if let Some(ty) = ty {
                typed[i] = Arc::new(ty.field("", true));
                let (id, field) = (id.clone(), Some(Arc::clone(&typed[i])));
                changes.push((i, Expr::Placeholder(Placeholder { id, field })));
            }
        } else if let Some(value) = written(&call.args[i]) {
            // Of two texts, the one in braces tells what both are.
            let kind = match others().find_map(|j| operands[j].kind()) {
                Some(kind) => function.literal_kind(Some(kind), value.text()),
                None => {
                    let other = others().find_map(|j| written(&call.args[j]));
                    let mut texts = [Some(&value), other.as_ref()].into_iter().flatten().filter_map(Written::text);
                    let in_braces = texts.clone().find(|text| kind_of_text(text) == VectorKind::Sparse);
                    function.literal_kind(None, in_braces.or_else(|| texts.next()))
                }
            };
            let (ty, literal) = match function.distance() {
                Some(_) => query_literal(&value, kind),
                None => vector_literal(&value, kind).map(|(ty, literal)| (ty, Some(literal))),
            }
            .map_err(to_df)?;
            typed[i] = Arc::new(ty.field("", false));
            changes.extend(literal.map(|literal| (i, literal)));
        }
    }
    check(function, &call.args, &typed).map_err(to_df)?;
    let transformed = !changes.is_empty();
    for (i, arg) in changes {
        call.args[i] = arg;
    }
    Ok(Transformed::new_transformed(Expr::ScalarFunction(call), transformed))
}

/// What `return_field_from_args` checks, with the types that the values have.
///
/// Nobody asks for the type of an expression in ORDER BY, and the type of a text does not tell its dimensions.
fn check(function: &dyn VectorFunction, args: &[Expr], fields: &[FieldRef]) -> Result<()> {
    let args: Vec<Arg> = args
        .iter()
        .zip(fields)
        .map(|(arg, field)| Arg {
            operand: Operand::of_field(field),
            field,
            literal: match arg {
                Expr::Literal(value, _) => Some(value),
                _ => None,
            },
        })
        .collect();
    return_field(function, &args, true).map(|_| ())
}

/// A distance between a column and a vector that is written out, or that a parameter or a cast has put there, becomes
/// a function that carries the vector, read once; see [`Distance::udf_of`](crate::distance::Distance::udf_of).
fn carry_query(call: ScalarFunction, schema: &DFSchema) -> DfResult<Transformed<Expr>> {
    let unchanged = |call| Ok(Transformed::no(Expr::ScalarFunction(call)));
    let function = VectorUdf::of(&call.func).expect("the caller has looked");
    let (Some(distance), [left, right]) = (function.distance(), call.args.as_slice()) else {
        return unchanged(call);
    };
    let (column, query) = match (left, right) {
        (Expr::Literal(..), Expr::Literal(..)) => return unchanged(call),
        (column, query @ Expr::Literal(..)) | (query @ Expr::Literal(..), column) => (column, query),
        _ => return unchanged(call),
    };
    let Expr::Literal(value, metadata) = query else { return unchanged(call) };
    let query_field = literal_field(value, metadata.as_ref());
    let (operand, query_operand) = (Operand::of_field(&*field_of(column, schema)?), Operand::of_field(&query_field));
    if value.is_null() || !operand.is_vector() || !(query_operand.is_vector() || query_operand == Operand::Text) {
        return unchanged(call);
    }
    // Bits and sparse vectors say how many dimensions they have in their metadata; their text says it too.
    let text = match query_operand.kind() {
        Some(VectorKind::Bit | VectorKind::Sparse) => text_literal(query).map_err(to_df)?,
        _ => None,
    };
    let value = match &text {
        Some(Expr::Literal(text, _)) => text,
        _ => value,
    };
    let kind = match operand.kind() {
        Some(VectorKind::Half) | None => VectorKind::Dense,
        Some(kind) => kind,
    };
    let Some(label) = label(value) else { return unchanged(call) };
    let query = Query::read(value, kind, operand.dims()).map_err(to_df)?;
    let args = vec![column.clone(), Expr::Literal(ScalarValue::from(label), None)];
    Ok(Transformed::yes(Expr::ScalarFunction(ScalarFunction::new_udf(distance.udf_of(Arc::new(query)), args))))
}
