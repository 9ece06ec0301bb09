//! What members of a JSON body must say: `{ "/status" = true, "/transactionType" = ["DEPOSIT", "CANCEL"] }`.

use crate::config::paper::{Complaints, Node, Table, Value as Written};
use crate::config::shape::Shape;
use crate::json::{Found, Pointer, Pointers, Value};

/// Members that must have one of the listed values, all of them.
#[derive(Clone, Debug, Default)]
pub struct Conditions(Vec<Condition>);

#[derive(Clone, Debug)]
struct Condition {
    slot: usize,
    any_of: Vec<Literal>,
}

#[derive(Clone, Debug, PartialEq)]
enum Literal {
    Text(String),
    Integer(i64),
    Boolean(bool),
}

impl Conditions {
    /// Reads a table of pointers and values.
    pub fn read(table: Table, wanted: &mut Pointers, complaints: &mut Complaints) -> Conditions {
        let literal = Shape::Either(vec![Shape::Text, Shape::Integer(i64::MIN..=i64::MAX), Shape::Boolean]);
        table.declare("*", literal.or_many());
        let mut conditions = Vec::new();
        for (key, node) in table.rest() {
            let pointer = match Pointer::parse(&key) {
                Ok(pointer) => pointer,
                Err(fault) => {
                    complaints.push(&key.place, format!("`{}` is not a JSON pointer: {fault}", key.value));
                    continue;
                }
            };
            let any_of = match literals(&node) {
                Some(any_of) if !any_of.is_empty() => any_of,
                _ => {
                    let message = "expected a string, an integer, a boolean, or an array of them";
                    complaints.push(&node.place, message);
                    continue;
                }
            };
            conditions.push(Condition { slot: wanted.want(&pointer), any_of });
        }
        Conditions(conditions)
    }

    /// True when every member is there with one of its values; true when there are no conditions.
    pub fn hold(&self, found: Option<&Found<'_>>) -> bool {
        self.0.iter().all(|condition| {
            let value = found.and_then(|found| found.at(condition.slot));
            value.is_some_and(|value| condition.any_of.iter().any(|literal| literal.is(value)))
        })
    }

    /// True when nothing is demanded.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Literal {
    fn is(&self, value: &Value<'_>) -> bool {
        match (self, value) {
            (Literal::Text(expected), Value::String(text)) => expected == text,
            (Literal::Integer(expected), Value::Number(literal)) => expected.to_string() == *literal,
            (Literal::Boolean(expected), Value::Bool(boolean)) => expected == boolean,
            _ => false,
        }
    }
}

fn literals(node: &Node) -> Option<Vec<Literal>> {
    match &node.value {
        Written::Array(nodes) => nodes.iter().map(literal).collect(),
        _ => literal(node).map(|one| vec![one]),
    }
}

fn literal(node: &Node) -> Option<Literal> {
    match &node.value {
        Written::String(text) => Some(Literal::Text(text.clone())),
        Written::Integer(number) => Some(Literal::Integer(*number)),
        Written::Boolean(truth) => Some(Literal::Boolean(*truth)),
        Written::Float | Written::Datetime | Written::Array(_) | Written::Table(_) => None,
    }
}
