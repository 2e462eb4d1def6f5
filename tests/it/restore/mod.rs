//! Restore, seen whole: the program run against real servers and hostile ones.

mod choices;
mod commands;
mod folded;
mod foreign;
mod moments;
mod round_trip;
mod same;
mod thaw;
