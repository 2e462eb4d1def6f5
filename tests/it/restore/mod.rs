//! Restore, seen whole: the program run against real servers and hostile ones.

mod choices;
mod commands;
mod disks;
mod faults;
mod folded;
mod foreign;
mod hostile;
mod killed;
mod moments;
mod round_trip;
mod same;
mod thaw;
