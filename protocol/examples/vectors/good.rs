//! What every reader accepts.

mod audit;
mod batch;
mod command;
mod exchange;
mod newer;
mod report;
mod stream;
mod text;
mod token;

use crate::vector::Vector;

pub(crate) use exchange::{proof, trail};

pub(crate) fn all() -> Vec<Vector> {
    [
        token::all(),
        command::all(),
        report::all(),
        newer::all(),
        batch::all(),
        exchange::all(),
        crate::statement::good(),
        stream::all(),
        text::all(),
        audit::all(),
    ]
    .into_iter()
    .flatten()
    .collect()
}
