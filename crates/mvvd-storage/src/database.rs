//! The tables of a database, by name.

use std::collections::BTreeMap;
use std::sync::Arc;

use mvvd_core::{Error, Result, TableSchema};
use parking_lot::RwLock;

use crate::table::Table;

/// Longest table name, in bytes.
const NAME_BYTES_MAX: usize = 255;

/// All tables. Names are compared as they are; the SQL layer folds case.
#[derive(Debug, Default)]
pub struct Database {
    tables: RwLock<BTreeMap<String, Arc<Table>>>,
}

impl Database {
    /// A database without tables.
    pub fn new() -> Self {
        Self::default()
    }

    /// The table named `name`.
    pub fn table(&self, name: &str) -> Result<Arc<Table>> {
        self.find(name).ok_or_else(|| Error::not_found(format!("table \"{name}\" does not exist")))
    }

    /// The table named `name`, if there is one.
    pub fn find(&self, name: &str) -> Option<Arc<Table>> {
        self.tables.read().get(name).cloned()
    }

    /// All tables in order of their names.
    pub fn tables(&self) -> Vec<(String, Arc<Table>)> {
        self.tables.read().iter().map(|(name, table)| (name.clone(), Arc::clone(table))).collect()
    }

    /// Makes a table empty.
    pub fn create(&self, name: &str, schema: TableSchema) -> Result<Arc<Table>> {
        self.add(name, Table::new(schema))
    }

    /// Adds a table that was filled before anybody could see it.
    pub fn add(&self, name: &str, table: Table) -> Result<Arc<Table>> {
        self.put(name, table, false)
    }

    /// Adds a table in the place of the one that has the name, if there is one, in one step.
    pub fn add_or_replace(&self, name: &str, table: Table) -> Result<Arc<Table>> {
        self.put(name, table, true)
    }

    fn put(&self, name: &str, table: Table, replace: bool) -> Result<Arc<Table>> {
        if name.is_empty() || name.len() > NAME_BYTES_MAX {
            return Err(Error::invalid(format!("a table name has 1 to {NAME_BYTES_MAX} bytes, got {}", name.len())));
        }
        let mut tables = self.tables.write();
        if !replace && tables.contains_key(name) {
            return Err(Error::already_exists(format!("table \"{name}\" already exists")));
        }
        let table = Arc::new(table);
        tables.insert(name.to_owned(), Arc::clone(&table));
        Ok(table)
    }

    /// Removes the tables named, all or none; readers that hold a snapshot keep it.
    pub fn drop_all(&self, names: &[String]) -> Result<()> {
        let mut tables = self.tables.write();
        if let Some(name) = names.iter().find(|name| !tables.contains_key(*name)) {
            return Err(Error::not_found(format!("table \"{name}\" does not exist")));
        }
        for name in names {
            tables.remove(name);
        }
        Ok(())
    }

    /// Gives a table another name.
    pub fn rename(&self, old: &str, new: &str) -> Result<()> {
        let mut tables = self.tables.write();
        if tables.contains_key(new) {
            return Err(Error::already_exists(format!("table \"{new}\" already exists")));
        }
        let table = tables.remove(old).ok_or_else(|| Error::not_found(format!("table \"{old}\" does not exist")))?;
        tables.insert(new.to_owned(), table);
        Ok(())
    }
}
