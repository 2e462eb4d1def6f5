//! Restore, seen whole: the program run against real servers and hostile ones.

mod choices;
mod foreign;
mod round_trip;
mod same;
