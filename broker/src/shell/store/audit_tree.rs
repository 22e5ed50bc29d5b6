//! The Merkle tree over the audit trail: its nodes, kept beside the rows and written with them; and proofs out of them.

use anyhow::Context as _;
use protocol::audit::{
    Hash, proof,
    tree::{Node, node_hash},
};
use rusqlite::{Connection, OptionalExtension as _, Transaction, TransactionBehavior, params};

use super::{Store, column::Uint};

/// Rows of an older database whose nodes are made in one transaction: some 20 ms of work, and little to write at once.
const FILL_ROWS: u64 = 10_000;

/// The hash of a complete subtree is not there, or not one.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the tree over the audit trail lacks the node {} of level {}", .0.index, .0.level)]
struct NodeMissing(Node);

/// Adds the nodes that row `seq` completes; `prev` is the hash of the row before it.
pub(super) fn append(
    tx: &Transaction<'_>,
    seq: u64,
    hash: &Hash,
    prev: &Hash,
) -> anyhow::Result<()> {
    let mut node = Node {
        level: 0,
        index: seq,
    };
    let mut hash = *hash;
    while node.index & 1 == 1 {
        let left = match node.level {
            0 => *prev,
            level => read(
                tx,
                Node {
                    level,
                    index: node.index - 1,
                },
            )?,
        };
        hash = node_hash(&left, &hash);
        node = Node {
            level: node.level + 1,
            index: node.index >> 1,
        };
        tx.prepare_cached("INSERT INTO audit_node (level, idx, hash) VALUES (?, ?, ?)")?
            .execute(params![node.level, Uint(node.index), hash])
            .context("write the audit trail's tree")?;
    }
    Ok(())
}

/// Makes the nodes of rows that an earlier version wrote, some rows in each transaction. Where it stopped it goes on.
pub(super) fn fill(connection: &mut Connection) -> anyhow::Result<()> {
    loop {
        let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        // Each pair of rows has a node, and they were made in order.
        let pairs = tx
            .query_row(
                "SELECT max(idx) FROM audit_node WHERE level = 1",
                [],
                |row| row.get::<_, Option<Uint>>(0),
            )?
            .map_or(0, |last| last.0 + 1);
        if pairs >= size(&tx)? / 2 {
            return Ok(());
        }
        let rows = tx
            .prepare("SELECT seq, hash, prev FROM audit WHERE seq >= ? ORDER BY seq LIMIT ?")?
            .query_map(params![Uint(2 * pairs), Uint(FILL_ROWS)], |row| {
                Ok((row.get::<_, Uint>(0)?.0, row.get(1)?, row.get(2)?))
            })?
            .collect::<Result<Vec<_>, _>>()?;
        for (seq, hash, prev) in rows {
            append(&tx, seq, &hash, &prev)?;
        }
        tx.commit()?;
    }
}

/// How many rows there are.
pub(super) fn size(connection: &Connection) -> anyhow::Result<u64> {
    let last = connection
        .prepare_cached("SELECT max(seq) FROM audit")?
        .query_row([], |row| row.get::<_, Option<Uint>>(0))
        .context("read end of audit trail")?;
    Ok(last.map_or(0, |last| last.0 + 1))
}

/// The root over the first `size` rows.
pub(super) fn root(connection: &Connection, size: u64) -> anyhow::Result<Hash> {
    proof::root(size, &mut |node| read(connection, node))
}

/// That the first `old` rows are the beginning of the first `new`.
pub(super) fn consistency(
    connection: &Connection,
    old: u64,
    new: u64,
) -> anyhow::Result<Vec<Hash>> {
    proof::consistency(old, new, &mut |node| read(connection, node))
}

fn read(connection: &Connection, node: Node) -> anyhow::Result<Hash> {
    let hash = if node.level == 0 {
        connection
            .prepare_cached("SELECT hash FROM audit WHERE seq = ?")?
            .query_row([Uint(node.index)], |row| row.get(0))
    } else {
        connection
            .prepare_cached("SELECT hash FROM audit_node WHERE level = ? AND idx = ?")?
            .query_row(params![node.level, Uint(node.index)], |row| row.get(0))
    };
    hash.optional()
        .context("read the audit trail's tree")?
        .ok_or_else(|| NodeMissing(node).into())
}

impl Store {
    /// How many rows the audit trail has.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn audit_size(&self) -> anyhow::Result<u64> {
        self.read("read the size of the audit trail", size)
    }

    /// The root over the first `size` rows.
    ///
    /// # Errors
    /// There are fewer, or the store cannot be read.
    pub fn audit_root(&self, size: u64) -> anyhow::Result<Hash> {
        self.read("read the root of the audit trail", |connection| {
            root(connection, size)
        })
    }

    /// The proof that the first `old` rows are the beginning of the first `new` (RFC 6962 §2.1.2).
    ///
    /// # Errors
    /// There are fewer rows, or the store cannot be read.
    pub fn audit_consistency(&self, old: u64, new: u64) -> anyhow::Result<Vec<Hash>> {
        self.read("prove that the audit trail goes on", |connection| {
            consistency(connection, old, new)
        })
    }

    /// The proof that row `seq` is among the first `size` (RFC 6962 §2.1.1).
    ///
    /// # Errors
    /// There are fewer rows, or the store cannot be read.
    pub fn audit_inclusion(&self, seq: u64, size: u64) -> anyhow::Result<Vec<Hash>> {
        self.read("prove a row of the audit trail", |connection| {
            proof::inclusion(seq, size, &mut |node| read(connection, node))
        })
    }
}
