//! The distance operators `<->`, `<#>`, `<=>`, `<+>`, `<~>`, `<%>`, and `+ - *` and comparisons with vectors in them.

use std::sync::Arc;

use arrow::datatypes::FieldRef;
use datafusion::common::{DFSchema, ExprSchema, Result as DfResult};
use datafusion::logical_expr::expr::{Placeholder, ScalarFunction};
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawAggregateExpr, RawBinaryExpr, RawWindowExpr};
use datafusion::logical_expr::{BinaryExpr, Cast, Expr, ExprSchemable, Operator, ScalarUDF, WindowFunctionDefinition};
use datafusion::sql::sqlparser::ast::BinaryOperator;
use mvvd_core::metric::Metric;
use mvvd_core::{Error, Result, VectorKind, VectorType};

use crate::aggregate;
use crate::arithmetic::Arithmetic;
use crate::array::ARRAY;
use crate::distance::{Distance, Form};
use crate::error::to_df;
use crate::function::VectorUdf;
use crate::operand::{Operand, text_of};

/// Plans the operators of vectors, and `avg` and `sum` over them. Must come before DataFusion's own planners.
#[derive(Debug)]
pub struct VectorOperators {
    distances: Vec<(Metric, Arc<ScalarUDF>)>,
    arithmetic: Vec<(Arithmetic, Arc<ScalarUDF>)>,
}

impl Default for VectorOperators {
    fn default() -> Self {
        let metrics = [Metric::L2, Metric::Dot, Metric::Cosine, Metric::L1, Metric::Hamming, Metric::Jaccard];
        let udf = |metric| (metric, Distance { metric, form: Form::Distance }.udf());
        Self { distances: metrics.map(udf).to_vec(), arithmetic: Arithmetic::ALL.map(|op| (op, op.udf())).to_vec() }
    }
}

impl ExprPlanner for VectorOperators {
    fn plan_binary_op(&self, expr: RawBinaryExpr, schema: &DFSchema) -> DfResult<PlannerResult<RawBinaryExpr>> {
        if let Some(metric) = metric_of(&expr.op) {
            return Ok(self.plan_distance(metric, expr, schema));
        }
        match expr.op {
            BinaryOperator::Plus
            | BinaryOperator::Minus
            | BinaryOperator::Multiply
            | BinaryOperator::Divide
            | BinaryOperator::Modulo => self.plan_arithmetic(expr, schema).map_err(to_df),
            BinaryOperator::Eq
            | BinaryOperator::NotEq
            | BinaryOperator::Lt
            | BinaryOperator::LtEq
            | BinaryOperator::Gt
            | BinaryOperator::GtEq => Ok(plan_comparison(expr, schema)),
            _ => Ok(PlannerResult::Original(expr)),
        }
    }

    fn plan_aggregate(&self, mut expr: RawAggregateExpr) -> DfResult<PlannerResult<RawAggregateExpr>> {
        if let Some(func) = aggregate::for_any(&expr.func) {
            expr.func = func;
        }
        Ok(PlannerResult::Original(expr))
    }

    fn plan_window(&self, mut expr: RawWindowExpr) -> DfResult<PlannerResult<RawWindowExpr>> {
        if let WindowFunctionDefinition::AggregateUDF(func) = &mut expr.func_def
            && let Some(any) = aggregate::for_any(func)
        {
            *func = any;
        }
        Ok(PlannerResult::Original(expr))
    }
}

/// The metric of an operator, under the names that sqlparser gives them.
fn metric_of(op: &BinaryOperator) -> Option<Metric> {
    let custom = |name: &str| {
        Some(match name {
            "<->" => Metric::L2,
            "<#>" => Metric::Dot,
            // `<=>` is IS NOT DISTINCT FROM to sqlparser, so the lexer writes it with a tilde; `<+>` is no token at all.
            "<=>" | "<~=>" => Metric::Cosine,
            "<+>" | "<~+>" => Metric::L1,
            "<~>" => Metric::Hamming,
            "<%>" => Metric::Jaccard,
            _ => return None,
        })
    };
    match op {
        BinaryOperator::LtDashGt => Some(Metric::L2),
        BinaryOperator::Spaceship => Some(Metric::Cosine),
        BinaryOperator::Custom(name) => custom(name),
        BinaryOperator::PGCustomBinaryOperator(path) => custom(path.last()?),
        _ => None,
    }
}

impl VectorOperators {
    fn plan_distance(&self, metric: Metric, expr: RawBinaryExpr, schema: &DFSchema) -> PlannerResult<RawBinaryExpr> {
        let RawBinaryExpr { left, right, .. } = expr;
        let (a, b) = (PlanOperand::of(&left, schema), PlanOperand::of(&right, schema));
        if metric == Metric::Cosine && !a.makes_cosine(b) {
            return PlannerResult::Planned(Expr::BinaryExpr(BinaryExpr::new(
                Box::new(left),
                Operator::IsNotDistinctFrom,
                Box::new(right),
            )));
        }
        let (_, udf) = self.distances.iter().find(|(m, _)| *m == metric).expect("every operator has its function");
        let left = typed_parameter(left, b, |ty| VectorType { kind: query_kind(ty.kind), ..ty });
        let right = typed_parameter(right, a, |ty| VectorType { kind: query_kind(ty.kind), ..ty });
        PlannerResult::Planned(Expr::ScalarFunction(ScalarFunction::new_udf(Arc::clone(udf), vec![left, right])))
    }

    fn plan_arithmetic(&self, expr: RawBinaryExpr, schema: &DFSchema) -> Result<PlannerResult<RawBinaryExpr>> {
        let (a, b) = (PlanOperand::of(&expr.left, schema), PlanOperand::of(&expr.right, schema));
        if !a.may_be_vector() && !b.may_be_vector() {
            return Ok(PlannerResult::Original(expr));
        }
        let number = match (a, b) {
            (PlanOperand::Number, b) if b.may_be_vector() => true,
            (a, PlanOperand::Number) if a.may_be_vector() => true,
            _ => false,
        };
        if number {
            return Err(number_and_vector(&expr, a));
        }
        if !a.is_vector() && !b.is_vector() {
            return Ok(PlannerResult::Original(expr));
        }
        let op = match expr.op {
            BinaryOperator::Plus => Arithmetic::Add,
            BinaryOperator::Minus => Arithmetic::Subtract,
            BinaryOperator::Multiply => Arithmetic::Multiply,
            _ => {
                return Err(Error::unsupported(format!("vectors have no operator {}", expr.op))
                    .with_hint("+ - and * work on vectors of the same dimensions, element by element"));
            }
        };
        let (_, udf) = self.arithmetic.iter().find(|(o, _)| *o == op).expect("every operator has its function");
        let left = typed_parameter(expr.left, b, |ty| ty);
        let right = typed_parameter(expr.right, a, |ty| ty);
        Ok(PlannerResult::Planned(Expr::ScalarFunction(ScalarFunction::new_udf(Arc::clone(udf), vec![left, right]))))
    }
}

/// A query next to a column of f16 keeps its digits.
pub(crate) fn query_kind(kind: VectorKind) -> VectorKind {
    if kind == VectorKind::Half { VectorKind::Dense } else { kind }
}

/// A number with a vector in `+ - * /`: mostly a weight that binds stronger than the distance it was meant for.
fn number_and_vector(expr: &RawBinaryExpr, left: PlanOperand) -> Error {
    let (verb, op) = match expr.op {
        BinaryOperator::Plus => ("add", "+"),
        BinaryOperator::Minus => ("subtract", "-"),
        BinaryOperator::Multiply => ("multiply", "*"),
        BinaryOperator::Divide => ("divide", "/"),
        _ => ("divide", "%"),
    };
    let (a, b) = (operand_text(&expr.left), operand_text(&expr.right));
    let hint = if left == PlanOperand::Number {
        format!("write {a} {op} ({b} <-> ...)")
    } else {
        format!("write (... <-> {a}) {op} {b}")
    };
    Error::invalid(format!("cannot {verb} a number and a vector: the distance operators bind weaker than {op}"))
        .with_hint(hint)
}

/// An operand as a hint shows it: short values and names as they are written, anything else as an ellipsis.
fn operand_text(expr: &Expr) -> String {
    const CHARS_MAX: usize = 40;
    let text = match expr {
        Expr::Column(column) => column.name.clone(),
        Expr::Literal(value, _) => match text_of(value) {
            Some(text) => format!("'{text}'"),
            None => value.to_string(),
        },
        Expr::Placeholder(parameter) => parameter.id.clone(),
        _ => return "...".into(),
    };
    if text.chars().nth(CHARS_MAX).is_some() { "...".into() } else { text }
}

/// `v = '[1,2,3]'`: the other side becomes a vector of the same type.
fn plan_comparison(expr: RawBinaryExpr, schema: &DFSchema) -> PlannerResult<RawBinaryExpr> {
    // One look at the cheap side first: most comparisons have no vector near them.
    let (a, b) = (PlanOperand::of(&expr.left, schema), PlanOperand::of(&expr.right, schema));
    let RawBinaryExpr { op, left, right } = expr;
    let (left, right) = match (a.vector_type(), b.vector_type()) {
        (Some(a), None) if b.is_source() => (left, cast_to(right, a)),
        (None, Some(b)) if a.is_source() => (cast_to(left, b), right),
        (Some(x), Some(y)) if x.dims == y.dims && x.kind != y.kind => {
            // f32 holds every f16.
            let wide = |ty: VectorType| VectorType { kind: query_kind(ty.kind), ..ty };
            if wide(x) == wide(y) { (cast_to(left, wide(x)), cast_to(right, wide(y))) } else { (left, right) }
        }
        _ => (left, right),
    };
    PlannerResult::Original(RawBinaryExpr { op, left, right })
}

/// An expression cast to a vector type; the analyzer makes our conversion of it.
pub(crate) fn cast_to(expr: Expr, ty: VectorType) -> Expr {
    match expr {
        Expr::Placeholder(Placeholder { id, field: None }) => {
            Expr::Placeholder(Placeholder { id, field: Some(Arc::new(ty.field("", true))) })
        }
        other => Expr::Cast(Cast::new_from_field(Box::new(other), Arc::new(ty.field("", true)))),
    }
}

/// A parameter without a type gets the one of the vector beside it, so that clients can ask for it.
fn typed_parameter(expr: Expr, beside: PlanOperand, adapt: impl Fn(VectorType) -> VectorType) -> Expr {
    match (expr, beside.vector_type()) {
        (Expr::Placeholder(Placeholder { id, field: None }), Some(ty)) => {
            let field: FieldRef = Arc::new(adapt(ty).field("", true));
            Expr::Placeholder(Placeholder { id, field: Some(field) })
        }
        (expr, _) => expr,
    }
}

/// An operand while the statement is planned.
#[derive(Debug, Clone, Copy, PartialEq)]
enum PlanOperand {
    Vector(Option<VectorType>),
    /// Text or a list that reads as a vector, as far as its first character tells.
    Literal,
    /// Text that may hold vectors.
    Text,
    /// A list of numbers.
    List,
    Parameter,
    Null,
    Number,
    Other,
}

impl PlanOperand {
    /// Looks as deep as it must and no deeper: chains of thousands of operators are planned one by one.
    fn of(expr: &Expr, schema: &DFSchema) -> Self {
        match expr {
            Expr::Column(column) => schema.field_from_column(column).map_or(Self::Other, Self::of_field),
            Expr::OuterReferenceColumn(field, _) => Self::of_field(field),
            Expr::Literal(value, metadata) => match text_of(value) {
                Some(text) if text.trim_start().starts_with(['[', '{']) => Self::Literal,
                _ => {
                    let metadata = metadata.as_ref().map(|m| m.to_hashmap()).unwrap_or_default();
                    match Operand::of(&value.data_type(), &metadata) {
                        Operand::List(_) => Self::Literal,
                        _ if value.data_type().is_numeric() => Self::Number,
                        operand => Self::of_operand(operand),
                    }
                }
            },
            Expr::Placeholder(Placeholder { field: None, .. }) => Self::Parameter,
            Expr::Placeholder(Placeholder { field: Some(field), .. }) => Self::of_field(field),
            Expr::Cast(Cast { field, .. }) => Self::of_field(field),
            Expr::TryCast(cast) => Self::of_field(&cast.field),
            Expr::Alias(alias) => Self::of(&alias.expr, schema),
            Expr::ScalarFunction(call) if call.func.name() == ARRAY || call.func.name() == "make_array" => {
                Self::Literal
            }
            Expr::ScalarFunction(call) if VectorUdf::of(&call.func).is_some_and(|f| f.distance().is_some()) => {
                Self::Number
            }
            Expr::ScalarFunction(call) if Arithmetic::of(&call.func).is_some() => call
                .args
                .iter()
                .map(|arg| Self::of(arg, schema))
                .find(|operand| operand.is_vector())
                .unwrap_or(Self::Other),
            Expr::ScalarFunction(_)
            | Expr::AggregateFunction(_)
            | Expr::WindowFunction(_)
            | Expr::ScalarSubquery(_)
            | Expr::Case(_) => expr.to_field(schema).map_or(Self::Other, |(_, field)| Self::of_field(&field)),
            Expr::BinaryExpr(BinaryExpr {
                op: Operator::Plus | Operator::Minus | Operator::Multiply | Operator::Divide | Operator::Modulo,
                ..
            }) => Self::Number,
            Expr::Negative(inner) => Self::of(inner, schema),
            _ => Self::Other,
        }
    }

    fn of_field(field: &FieldRef) -> Self {
        if field.data_type().is_numeric() { Self::Number } else { Self::of_operand(Operand::of_field(field)) }
    }

    fn of_operand(operand: Operand) -> Self {
        match operand {
            Operand::Vector(ty) => Self::Vector(Some(ty)),
            Operand::Sparse => Self::Vector(None),
            Operand::Text => Self::Text,
            Operand::List(_) => Self::List,
            Operand::Null => Self::Null,
            // Bytes that do not say that they are bits are just bytes.
            Operand::Bytes(_) | Operand::Other => Self::Other,
        }
    }

    fn is_vector(self) -> bool {
        matches!(self, Self::Vector(_))
    }

    fn may_be_vector(self) -> bool {
        matches!(self, Self::Vector(_) | Self::Literal)
    }

    fn is_source(self) -> bool {
        matches!(self, Self::Literal | Self::Text | Self::List | Self::Parameter | Self::Null)
    }

    fn vector_type(self) -> Option<VectorType> {
        match self {
            Self::Vector(ty) => ty,
            _ => None,
        }
    }

    /// Whether `<=>` between the two is the cosine distance, and not IS NOT DISTINCT FROM.
    fn makes_cosine(self, other: Self) -> bool {
        let written = |operand| matches!(operand, Self::Literal | Self::List);
        match (self, other) {
            (Self::Vector(_), _) | (_, Self::Vector(_)) => true,
            (Self::Parameter, Self::Parameter) => true,
            (a, Self::Parameter | Self::Null) | (Self::Parameter | Self::Null, a) => written(a),
            (a, b) => written(a) && written(b),
        }
    }
}
